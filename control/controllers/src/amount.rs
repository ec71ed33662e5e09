//! Counts that may be given as percentages.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub(crate) fn rounded_up(value: &IntOrString, total: i32) -> i32 {
    resolve(value, total, 99)
}

pub(crate) fn rounded_down(value: &IntOrString, total: i32) -> i32 {
    resolve(value, total, 0)
}

fn resolve(value: &IntOrString, total: i32, rounding: i64) -> i32 {
    match value {
        IntOrString::Int(count) => *count,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            i32::try_from((i64::from(total) * percent + rounding) / 100).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{rounded_down, rounded_up};
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    #[test]
    fn percentages_are_of_the_total() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!((rounded_up(&quarter, 10), rounded_down(&quarter, 10)), (3, 2));
        assert_eq!(rounded_up(&IntOrString::Int(4), 10), 4);
        assert_eq!(rounded_up(&quarter, 0), 0);
    }
}
