//! Rules for PodDisruptionBudgets.

use serde_json::Value;

use super::errors::{Errors, Path};
use super::{meta, workload};
use crate::value::{is_set, text};

pub(crate) fn budget(budget: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &budget["spec"];
    if is_set(&spec["minAvailable"]) && is_set(&spec["maxUnavailable"]) {
        errors.invalid(&path, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
    }
    for field in ["minAvailable", "maxUnavailable"] {
        if is_set(&spec[field]) {
            workload::amount(&spec[field], &path.at(field), errors);
            workload::at_most_all(&spec[field], &path.at(field), errors);
        }
    }
    meta::selector(&spec["selector"], &path.at("selector"), errors);
    let policy = &spec["unhealthyPodEvictionPolicy"];
    if is_set(policy) && !matches!(text(policy), "IfHealthyBudget" | "AlwaysAllow") {
        let path = path.at("unhealthyPodEvictionPolicy");
        errors.not_supported(&path, policy.clone(), &["AlwaysAllow", "IfHealthyBudget"]);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    #[test]
    fn a_budget_has_one_bound_of_at_most_all_pods() {
        let check = |spec: Value| texts(|errors| budget(&json!({"spec": spec}), errors));
        assert_eq!(check(json!({"minAvailable": "50%", "selector": {}})), Vec::<String>::new());
        assert_eq!(
            check(json!({"minAvailable": 1, "maxUnavailable": 1})),
            [
                "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set"
            ]
        );
        assert_eq!(
            check(json!({"minAvailable": "101%"})),
            ["spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%"]
        );
    }
}
