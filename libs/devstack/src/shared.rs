//! The parts that all tests of a run share.

use std::path::PathBuf;

use anyhow::Result;
use tokio::sync::OnceCell;

use crate::parts::Parts;
use crate::stack::Stack;

/// Names the file in which `cargo ordersaga test` tells test processes where its parts are.
pub const PARTS_VARIABLE: &str = "ORDERSAGA_TEST_PARTS";

struct Shared {
    parts: Parts,
    /// Kept running until this process ends, when started here.
    _stack: Option<Stack>,
}

/// The parts of this test run: those of `cargo ordersaga test`, or without it a stack of this
/// process' own, which ends with it. They are everybody's: a test that stops or kills a part
/// starts a private one ([`crate::Part`], [`Stack::temporary`]).
pub async fn shared() -> Result<&'static Parts> {
    static SHARED: OnceCell<Shared> = OnceCell::const_new();
    let shared = SHARED.get_or_try_init(get).await?;
    Ok(&shared.parts)
}

async fn get() -> Result<Shared> {
    if let Some(file) = std::env::var_os(PARTS_VARIABLE) {
        let parts = Parts::load(&PathBuf::from(file))?;
        return Ok(Shared { parts, _stack: None });
    }
    let stack = Stack::temporary().await?;
    Ok(Shared { parts: stack.parts().clone(), _stack: Some(stack) })
}
