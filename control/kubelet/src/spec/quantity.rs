//! Kubernetes quantities (`100m`, `1.5Gi`, `2e3`) as whole numbers, always rounded up.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const NANO: i128 = 1_000_000_000;

/// The value in thousandths, rounded up; `None` if the text is not a quantity.
pub(crate) fn milli(quantity: &Quantity) -> Option<i64> {
    scaled(&quantity.0, 1_000_000)
}

/// The value in whole units (bytes, cores), rounded up.
pub(crate) fn units(quantity: &Quantity) -> Option<i64> {
    scaled(&quantity.0, NANO)
}

fn scaled(text: &str, nanos_per_unit: i128) -> Option<i64> {
    let nanos = nanos(text)?;
    let quotient = nanos.div_euclid(nanos_per_unit);
    let rest = nanos.rem_euclid(nanos_per_unit);
    i64::try_from(quotient + i128::from(rest > 0)).ok()
}

fn nanos(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| match text {
        "" => Some(0),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<i128>().ok(),
        _ => None,
    };
    let (numerator, denominator) = factor(suffix)?;
    let fraction = &fraction[..fraction.len().min(18)];
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let mantissa = digits(whole)?.checked_mul(scale)?.checked_add(digits(fraction)?)?;
    let product = mantissa.checked_mul(numerator)?.checked_mul(NANO)?;
    let divisor = denominator.checked_mul(scale)?;
    let nanos = product.div_euclid(divisor) + i128::from(product.rem_euclid(divisor) > 0);
    Some(if negative { -nanos } else { nanos })
}

/// The multiplier of a suffix as a fraction.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let decimal = |power: u32| 10_i128.checked_pow(power);
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, NANO),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (decimal(6)?, 1),
        "G" => (decimal(9)?, 1),
        "T" => (decimal(12)?, 1),
        "P" => (decimal(15)?, 1),
        "E" => (decimal(18)?, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = decimal(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_upstream_reads_them() {
        for (text, in_milli, in_units) in [
            ("100m", 100, 1),
            ("1", 1_000, 1),
            ("1.5", 1_500, 2),
            ("0.1", 100, 1),
            ("1500u", 2, 1),
            ("64Mi", 67_108_864_000, 67_108_864),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
            ("2e3", 2_000_000, 2_000),
            ("5k", 5_000_000, 5_000),
            ("0", 0, 0),
        ] {
            let quantity = Quantity(text.into());
            assert_eq!((milli(&quantity), units(&quantity)), (Some(in_milli), Some(in_units)), "{text}");
        }
        for bad in ["", "x", "1x", "--1", "Mi", "1.2.3"] {
            assert_eq!(milli(&Quantity(bad.into())), None, "{bad:?}");
        }
    }
}
