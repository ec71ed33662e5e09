//! DaemonSets: the generation of their template, which older clients read from an annotation.

use serde_json::Value;

use crate::meta;
use crate::value::{same, text};

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub(crate) fn create(set: &mut Value) {
    write(set, 1);
}

/// Grows with each change of the template and is nobody's to write.
pub(crate) fn update(old: &Value, new: &mut Value) {
    let before = text(&old["metadata"]["annotations"][TEMPLATE_GENERATION]).parse().unwrap_or(1);
    let changed = !same(&old["spec"]["template"], &new["spec"]["template"]);
    write(new, if changed { before + 1 } else { before });
}

fn write(set: &mut Value, generation: i64) {
    let metadata = meta::child_mut(set, "metadata");
    let annotations = metadata.entry("annotations").or_insert(Value::Null);
    if !annotations.is_object() {
        *annotations = Value::Object(serde_json::Map::new());
    }
    annotations[TEMPLATE_GENERATION] = generation.to_string().into();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_template_counts() {
        let mut old = json!({"metadata": {}, "spec": {"template": {"a": 1}, "minReadySeconds": 1}});
        create(&mut old);
        let generation = |new: &Value| text(&new["metadata"]["annotations"][TEMPLATE_GENERATION]).to_owned();
        assert_eq!(generation(&old), "1");
        let mut new = json!({"metadata": {}, "spec": {"template": {"a": 1}, "minReadySeconds": 2}});
        update(&old, &mut new);
        assert_eq!(generation(&new), "1");
        let mut new = json!({"metadata": {}, "spec": {"template": {"a": 2}}});
        update(&old, &mut new);
        assert_eq!(generation(&new), "2");
    }
}
