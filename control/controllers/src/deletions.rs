//! Who is told that an object of some kind is gone: the garbage collector sees every kind, others listen.

use parking_lot::RwLock;

/// Called with group, plural and namespace of what is gone.
type Listener = Box<dyn Fn(&str, &str, &str) + Send + Sync>;

#[derive(Default)]
pub(crate) struct Deletions {
    listeners: RwLock<Vec<Listener>>,
}

impl Deletions {
    pub(crate) fn on_deletion(&self, listener: impl Fn(&str, &str, &str) + Send + Sync + 'static) {
        self.listeners.write().push(Box::new(listener));
    }

    pub(crate) fn tell(&self, group: &str, plural: &str, namespace: &str) {
        self.listeners.read().iter().for_each(|listener| listener(group, plural, namespace));
    }
}
