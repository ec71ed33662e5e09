//! Which Ingresses are ours.

use std::collections::HashMap;

use crate::model::{Ingress, IngressClass, ObjectKey};

#[derive(Clone, Debug)]
pub(crate) struct ClassPolicy {
    /// The controller that an IngressClass of ours names.
    pub(crate) controller: String,
    /// The value of the legacy annotation that means us.
    pub(crate) legacy_class: String,
    /// Serve Ingresses without any class even if no default class is ours.
    pub(crate) without_class: bool,
}

impl ClassPolicy {
    /// The legacy annotation counts before the field, as the API demands. Without either, the default class decides.
    pub(crate) fn is_ours(&self, ingress: &Ingress, classes: &HashMap<ObjectKey, IngressClass>) -> bool {
        let names_us = |class: &str| {
            classes.get(&ObjectKey::new("", class)).is_some_and(|class| *class.controller == *self.controller)
        };
        match (&ingress.legacy_class, &ingress.class) {
            (Some(class), _) => **class == *self.legacy_class || names_us(class),
            (None, Some(class)) => names_us(class),
            (None, None) => {
                let is_our_default = |class: &IngressClass| class.is_default && *class.controller == *self.controller;
                self.without_class || classes.values().any(is_our_default)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::ClassPolicy;
    use crate::model::{Ingress, IngressClass, Model, ObjectKey};

    fn ours(class: Option<&str>, legacy: Option<&str>, default: bool, without_class: bool) -> bool {
        let policy =
            ClassPolicy { controller: "tidegate.dev/ingress".into(), legacy_class: "tidegate".into(), without_class };
        let classes: HashMap<_, _> = [("mine", "tidegate.dev/ingress", default), ("other", "example.com/other", false)]
            .map(|(name, controller, is_default)| {
                let key = ObjectKey::new("", name);
                (key.clone(), IngressClass { key, controller: controller.into(), is_default })
            })
            .into();
        let mut ingress = Ingress::from_object(Default::default());
        ingress.class = class.map(Into::into);
        ingress.legacy_class = legacy.map(Into::into);
        policy.is_ours(&ingress, &classes)
    }

    #[test]
    fn the_class_decides_whose_an_ingress_is() {
        for (class, legacy, default, without_class, expected) in [
            (Some("mine"), None, false, false, true),
            (Some("other"), None, true, true, false),
            (Some("some-invalid-class-name"), None, true, true, false),
            (None, Some("tidegate"), false, false, true),
            (None, Some("mine"), false, false, true),
            (None, Some("nginx"), true, true, false),
            (Some("mine"), Some("nginx"), false, false, false),
            (Some("other"), Some("tidegate"), false, false, true),
            (None, None, false, false, false),
            (None, None, true, false, true),
            (None, None, false, true, true),
        ] {
            let got = ours(class, legacy, default, without_class);
            assert_eq!(got, expected, "{class:?} {legacy:?} {default} {without_class}");
        }
    }
}
