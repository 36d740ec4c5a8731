//! No spans: what stands for `trace` without the feature `opentelemetry`.

use crate::Record;

/// Nobody makes spans.
#[derive(Clone)]
pub(crate) struct Traces;

pub(crate) enum Sending {}

impl Sending {
    pub(crate) fn begin(_: Option<&Traces>, _: &str, _: &str, _: Option<&str>) -> Option<Self> {
        None
    }

    pub(crate) fn traceparent(&self) -> String {
        match *self {}
    }

    pub(crate) fn fail(&mut self, _: &str) {
        match *self {}
    }
}

pub(crate) struct Processing;

impl Processing {
    pub(crate) fn begin<M>(_: Option<&Traces>, _: &str, _: &mut [Record<M>]) -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "as in `trace`")]
    pub(crate) fn retried(&mut self, _: &str) {}
}
