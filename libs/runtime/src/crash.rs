//! Named points at which a test makes the process die as by `kill -9`: between any two steps whose
//! separation must not matter. Debug builds only; a release build carries none of it.

/// Ends the process at once, without any clean-up, if `CRASH_AT` names this point.
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    {
        static CRASH_AT: std::sync::LazyLock<Option<String>> =
            std::sync::LazyLock::new(|| std::env::var("CRASH_AT").ok());
        if CRASH_AT.as_deref() == Some(name) {
            std::process::abort();
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
