//! Named points at which a test makes the process die as by `kill -9`: between any two steps whose
//! separation must not matter. Only in debug builds with the feature `crash-points`.

/// Ends the process at once, without any clean-up, if `CRASH_AT` names this point.
pub fn point(name: &str) {
    #[cfg(all(debug_assertions, feature = "crash-points"))]
    {
        static CRASH_AT: std::sync::LazyLock<Option<String>> =
            std::sync::LazyLock::new(|| std::env::var("CRASH_AT").ok());
        if CRASH_AT.as_deref() == Some(name) {
            std::process::abort();
        }
    }
    #[cfg(not(all(debug_assertions, feature = "crash-points")))]
    let _ = name;
}
