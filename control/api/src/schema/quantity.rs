//! `resource.Quantity`: a fixed-point number with a suffix, and its one canonical spelling.
//!
//! As upstream, amounts are rounded up to nano units and capped at 2^63-1 whole units.

/// An amount in nano units and the family of suffixes it was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    pub nanos: i128,
    pub format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `1500m`, `2G`
    Decimal,
    /// `1.5Gi`
    Binary,
    /// `15e8`
    Exponent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i128 = 1_000_000_000;
const CAP: i128 = i64::MAX as i128 * NANO;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// The canonical spelling of a quantity: `0.5` becomes `500m`.
///
/// # Errors
/// When the text is no quantity.
pub fn canonical(text: &str) -> Result<String, QuantityError> {
    text.parse::<Quantity>().map(|quantity| quantity.to_string())
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(QuantityError::Format),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Format);
        }
        if !suffix.chars().all(|c| c.is_ascii_digit() || "eEinumkKMGTP+-".contains(c)) {
            return Err(QuantityError::Format);
        }
        let (multiplier, format) = scale(suffix)?;
        let nanos = amount(whole, fraction, multiplier);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

fn scale(suffix: &str) -> Result<(Scale, Format), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Scale::Ten(*exponent), Format::Decimal));
    }
    if let Some(at) = BINARY.iter().position(|name| *name == suffix) {
        return Ok((Scale::Two(10 * (u32::try_from(at).unwrap_or(0) + 1)), Format::Binary));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
    Ok((Scale::Ten(exponent), Format::Exponent))
}

/// Digits times the scale in nano units, rounded up, capped.
fn amount(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let mut digits: i128 = 0;
    let mut point: i32 = 0;
    for (at, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let Some(next) = digits.checked_mul(10).and_then(|value| value.checked_add(i128::from(digit - b'0'))) else {
            if at < whole.len() {
                return CAP;
            }
            break;
        };
        digits = next;
        point -= i32::from(at >= whole.len());
    }
    let (power, factor) = match scale {
        Scale::Ten(exponent) => (exponent.saturating_add(point).saturating_add(9), 1),
        Scale::Two(bits) => (point + 9, 1i128 << bits),
    };
    let Some(scaled) = digits.checked_mul(factor) else { return CAP };
    let nanos = if power >= 0 {
        10i128.checked_pow(power.unsigned_abs()).and_then(|ten| scaled.checked_mul(ten)).unwrap_or(CAP)
    } else {
        match 10i128.checked_pow(power.unsigned_abs()) {
            Some(ten) => scaled / ten + i128::from(scaled % ten != 0),
            None => i128::from(scaled != 0),
        }
    };
    if digits == 0 { 0 } else { nanos.min(CAP) }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nanos == 0 {
            return out.write_str("0");
        }
        if self.format == Format::Binary && self.nanos % NANO == 0 && self.nanos.abs() >= 1024 * NANO {
            return self.binary(out);
        }
        let (mut mantissa, mut exponent) = (self.nanos, -9i32);
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (Format::Exponent, 0) => write!(out, "{mantissa}"),
            (Format::Exponent, exponent) => write!(out, "{mantissa}e{exponent}"),
            _ => {
                let suffix = DECIMAL.iter().find(|(_, at)| *at == exponent).map_or("", |(name, _)| name);
                write!(out, "{mantissa}{suffix}")
            }
        }
    }
}

impl Quantity {
    fn binary(self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut value = self.nanos / NANO;
        let mut at = 0;
        while value % 1024 == 0 && at < BINARY.len() {
            value /= 1024;
            at += 1;
        }
        match at {
            0 => write!(out, "{value}"),
            at => write!(out, "{value}{}", BINARY[at - 1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_one_spelling() {
        for (text, want) in [
            ("0", "0"), ("0.5", "500m"), ("1", "1"), ("1000m", "1"), ("1500m", "1500m"), ("1.5", "1500m"), ("1000", "1k"),
            ("128Mi", "128Mi"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("0.5Ki", "512"), ("1e3", "1e3"), ("1E3", "1e3"),
            ("12e6", "12e6"), ("100u", "100u"), ("1n", "1n"), ("0.1n", "1n"), ("-1.5", "-1500m"), ("+2", "2"), (".5", "500m"),
            ("5.", "5"), ("1E", "1E"), ("9223372036854775807", "9223372036854775807"), ("100Ei", "9223372036854775807"),
            ("1000Ki", "1000Ki"), ("2000G", "2T"), ("0.0", "0"), ("1e0", "1"), ("0.5Gi", "512Mi"), ("1000000", "1M"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for text in ["", "x", "1 Gi", "1.2.3", "-", ".", "1g", "one"] {
            assert_eq!(canonical(text), Err(QuantityError::Format), "{text}");
        }
        for text in ["1Kii", "1mm", "1e", "1ei", "1K"] {
            assert_eq!(canonical(text), Err(QuantityError::Suffix), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_canonical_spelling_is_its_own(whole in 0u64..1 << 40, fraction in 0u32..1000, suffix in "(|m|k|M|G|Ki|Mi|Gi|e3|e-3)") {
            let once = canonical(&format!("{whole}.{fraction}{suffix}")).unwrap();
            proptest::prop_assert_eq!(canonical(&once).unwrap(), once);
        }
    }
}
