//! Numbers as Go reads and prints them.

use serde_json::{Number, Value};

/// Beyond this, a float no longer holds every integer.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Writes whole numbers without a fraction (`1.0` becomes `1`), as Go does.
pub(super) fn normalize(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = whole(number).filter(|_| number.is_f64()) {
                *number = whole.into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(normalize),
        Value::Object(object) => object.values_mut().for_each(normalize),
        _ => {}
    }
}

/// The integer that a number is.
#[expect(clippy::cast_possible_truncation, reason = "whole and small enough to be exact")]
pub(super) fn whole(number: &Number) -> Option<i64> {
    let is_whole = |float: &f64| float.fract() == 0.0 && float.abs() <= EXACT_MAX;
    number.as_i64().or_else(|| number.as_f64().filter(is_whole).map(|float| float as i64))
}

/// A limit as Go prints it: without a fraction if it has none.
pub(super) fn print(limit: f64) -> String {
    format!("{limit}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_numbers_lose_their_fraction() {
        let mut value = json!({"a": 1.0, "b": [2.5, -3.0], "c": 1e30});
        normalize(&mut value);
        assert_eq!(value.to_string(), r#"{"a":1,"b":[2.5,-3],"c":1e+30}"#);
        assert_eq!((print(10.0), print(0.5)), ("10".into(), "0.5".into()));
    }
}
