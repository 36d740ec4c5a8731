//! Whether a part of the bus can do its work, told to whoever watches it.

/// Told when a part of the bus comes or goes, and again each second while it stays so.
pub trait Watcher: Send + Sync + 'static {
    /// It does its work.
    fn up(&self);

    /// It cannot do its work, and why.
    fn down(&self, why: &str);
}

/// Nobody watches.
impl Watcher for () {
    fn up(&self) {}

    fn down(&self, _: &str) {}
}
