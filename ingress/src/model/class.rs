//! IngressClass: the controller it belongs to, and whether it is the default.

use k8s_openapi::api::networking::v1 as networking;

use super::{Model, ObjectKey};

const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IngressClass {
    pub(crate) key: ObjectKey,
    pub(crate) controller: Box<str>,
    pub(crate) is_default: bool,
}

impl Model for IngressClass {
    type Object = networking::IngressClass;

    fn id(&self) -> &ObjectKey {
        &self.key
    }

    fn key(object: &Self::Object) -> ObjectKey {
        ObjectKey::of(&object.metadata)
    }

    fn from_object(object: Self::Object) -> Self {
        let key = ObjectKey::of(&object.metadata);
        let annotations = object.metadata.annotations.unwrap_or_default();
        Self {
            key,
            controller: object.spec.and_then(|spec| spec.controller).unwrap_or_default().into(),
            is_default: annotations.get(DEFAULT_CLASS_ANNOTATION).is_some_and(|value| value == "true"),
        }
    }
}
