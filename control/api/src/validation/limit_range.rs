//! Rules for LimitRanges: bounds, defaults and ratios that do not contradict each other.

use std::collections::BTreeSet;

use serde_json::Value;

use super::errors::{Errors, Path};
use crate::names;
use crate::quantity::Quantity;
use crate::quota::Amounts;
use crate::value::{entries, is_set, items, text};

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
const STANDARD: &[&str] = &["cpu", "ephemeral-storage", "memory", "storage"];
/// Quantities up to here are compared in thousandths, as upstream does.
const MILLI_MAX: i64 = i64::MAX / 1000;

pub(crate) fn limit_range(range: &Value, errors: &mut Errors) {
    let path = Path::new("spec").at("limits");
    let mut kinds = BTreeSet::new();
    for (at, item) in items(&range["spec"]["limits"]).iter().enumerate() {
        let path = path.index(at);
        let kind = text(&item["type"]);
        errors.complaints(&path.at("type"), kind, names::qualified_name(kind));
        if !kinds.insert(kind) {
            errors.duplicate(&path.at("type"), kind);
        }
        one(item, kind, &path, errors);
    }
}

fn one(item: &Value, kind: &str, path: &Path, errors: &mut Errors) {
    for list in LISTS {
        let path = path.at(list);
        if kind == "Pod" && list.starts_with("default") {
            if entries(&item[list]).next().is_some() {
                errors.forbidden(&path, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, value) in entries(&item[list]) {
            resource_name(kind, name, &path.key(name), errors);
            errors.quantity(&path.key(name), value);
        }
    }
    let storage = |list: &str| is_set(&item[list]["storage"]);
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(&path.at("limits"), detail);
    }
    let names: BTreeSet<&String> = LISTS.iter().flat_map(|list| entries(&item[list])).map(|(name, _)| name).collect();
    for name in names {
        let of = |list: &str| {
            if kind == "Pod" && list.starts_with("default") { None } else { Amounts::read(&item[list]).get(name) }
        };
        let said = Said {
            min: of("min"),
            max: of("max"),
            limit: of("default"),
            request: of("defaultRequest"),
            ratio: of("maxLimitRequestRatio"),
        };
        said.check(name, path, errors);
    }
}

fn resource_name(kind: &str, name: &str, path: &Path, errors: &mut Errors) {
    errors.complaints(path, name, names::qualified_name(name));
    let is_standard = STANDARD.contains(&name) || name.starts_with("hugepages-");
    let is_known_kind = matches!(kind, "Container" | "Pod");
    if is_known_kind && !name.contains('/') && !is_standard {
        errors.invalid(path, name, "must be a standard resource for containers");
    } else if !is_known_kind && !name.contains('/') && !is_standard {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
    }
}

/// All that an item says about one resource.
struct Said {
    min: Option<Quantity>,
    max: Option<Quantity>,
    limit: Option<Quantity>,
    request: Option<Quantity>,
    ratio: Option<Quantity>,
}

impl Said {
    fn check(&self, name: &str, path: &Path, errors: &mut Errors) {
        let orders = [
            (self.min, self.max, "min", self.min, "min value", "max value"),
            (self.min, self.request, "defaultRequest", self.request, "min value", "default request value"),
            (self.request, self.max, "defaultRequest", self.request, "default request value", "max value"),
            (self.request, self.limit, "defaultRequest", self.request, "default request value", "default limit value"),
            (self.min, self.limit, "default", self.min, "min value", "default value"),
            (self.limit, self.max, "default", self.max, "default value", "max value"),
        ];
        for (low, high, field, shown, low_word, high_word) in orders {
            if let (Some(low), Some(high), Some(shown)) = (low, high, shown)
                && low > high
            {
                let detail = format!("{low_word} {low} is greater than {high_word} {high}");
                errors.invalid(&path.at(field).key(name), shown.to_string(), &detail);
            }
        }
        let Some(ratio) = self.ratio else { return };
        let path = path.at("maxLimitRequestRatio").key(name);
        if ratio < Quantity::ONE {
            errors.invalid(&path, ratio.to_string(), &format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (self.min, self.max) {
            let small = [ratio, min, max].iter().all(|quantity| quantity.whole() < MILLI_MAX);
            let value = |quantity: Quantity| if small { quantity.milli() as f64 } else { quantity.whole() as f64 };
            let most = value(max) / value(min);
            let wanted = if small { value(ratio) / 1000.0 } else { value(ratio) };
            if wanted > most {
                errors.invalid(&path, ratio.to_string(), &format!("ratio {ratio} is greater than max/min = {most:.6}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    fn check(limits: Value) -> Vec<String> {
        texts(|errors| limit_range(&json!({"spec": {"limits": limits}}), errors))
    }

    #[test]
    fn bounds_and_defaults_are_in_order() {
        let good = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}, "default": {"cpu": "1"},
            "defaultRequest": {"cpu": "500m"}, "maxLimitRequestRatio": {"cpu": "5"}});
        assert_eq!(check(json!([good])), Vec::<String>::new());
        assert_eq!(
            check(
                json!([{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}, "default": {"cpu": "1500m"}}])
            ),
            [
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1500m",
                "spec.limits[0].default[cpu]: Invalid value: \"1\": default value 1500m is greater than max value 1",
            ]
        );
        assert_eq!(
            check(json!([{"type": "Container", "maxLimitRequestRatio": {"cpu": "500m"}}])),
            ["spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1"]
        );
    }

    #[test]
    fn types_come_once_and_pods_have_no_defaults() {
        assert_eq!(
            check(
                json!([{"type": "Pod", "default": {"cpu": "1"}}, {"type": "Pod"}, {"type": "PersistentVolumeClaim"}])
            ),
            [
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                "spec.limits[1].type: Duplicate value: \"Pod\"",
                "spec.limits[2].limits: Required value: either minimum or maximum storage value is required, but neither \
                 was provided",
            ]
        );
    }
}
