//! Resource quantities (`500m`, `1Gi`, `1e3`): exact values and the canonical text upstream stores.

use std::fmt;

const NANO: i128 = 1_000_000_000;
/// Above this, nano units would overflow; upstream caps at 2^63-1 as well.
const WHOLE_MAX: i128 = i64::MAX as i128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Binary,
    Decimal,
    Exponent,
}

/// A number with a unit style.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

impl Quantity {
    pub const ZERO: Self = Self { nano: 0, format: Format::Decimal };
    pub const ONE: Self = Self { nano: NANO, format: Format::Decimal };

    /// A count of things.
    #[must_use]
    pub fn count(number: usize) -> Self {
        Self { nano: i128::try_from(number).unwrap_or(WHOLE_MAX).min(WHOLE_MAX) * NANO, ..Self::ZERO }
    }

    /// The sum, in the unit style of the first unless that is zero.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let format = if self.nano == 0 { other.format } else { self.format };
        let limit = WHOLE_MAX * NANO;
        Self { nano: (self.nano + other.nano).clamp(-limit, limit), format }
    }

    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.plus(Self { nano: -other.nano, ..other })
    }

    /// Whether there is no fraction.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.nano % NANO == 0
    }

    /// Reads a quantity; more precision than nano is rounded away from zero.
    ///
    /// # Errors
    /// If the text is not a number with a known suffix.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError);
        }
        let (scale, format) = scale(suffix).ok_or(QuantityError)?;
        let nano = scaled(whole, fraction, scale).min(WHOLE_MAX * NANO);
        Ok(Self { nano: if negative { -nano } else { nano }, format })
    }

    #[must_use]
    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    #[must_use]
    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    /// Thousandths, rounded up: what CPU is counted in.
    #[must_use]
    pub fn milli(self) -> i64 {
        i64::try_from(round_up(self.nano, NANO / 1000)).unwrap_or(i64::MAX)
    }

    /// Whole units, rounded up: what memory is counted in.
    #[must_use]
    pub fn whole(self) -> i64 {
        i64::try_from(round_up(self.nano, NANO)).unwrap_or(i64::MAX)
    }

    /// Billionths: exact.
    #[must_use]
    pub fn nano(self) -> i128 {
        self.nano
    }

    /// The same, rounded up to thousandths, as resource lists are stored.
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        Self { nano: round_up(self.nano, NANO / 1000) * (NANO / 1000), ..self }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nano.cmp(&other.nano)
    }
}

/// The canonical text: no fraction, the largest suffix that leaves none.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        if self.format == Format::Binary && self.nano.abs() >= 1024 * NANO {
            let mut number = round_up(self.nano, NANO);
            let mut step = 0;
            while number % 1024 == 0 && step < BINARY.len() - 1 {
                number /= 1024;
                step += 1;
            }
            return write!(f, "{number}{}", BINARY[step]);
        }
        let mut number = self.nano;
        let mut step = 0;
        while number % 1000 == 0 && step < DECIMAL.len() - 1 {
            number /= 1000;
            step += 1;
        }
        match (self.format, step as i32 * 3 - 9) {
            (Format::Exponent, 0) => write!(f, "{number}"),
            (Format::Exponent, exponent) => write!(f, "{number}e{exponent}"),
            _ => write!(f, "{number}{}", DECIMAL[step]),
        }
    }
}

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

enum Scale {
    Power10(i32),
    Power1024(u32),
}

fn scale(suffix: &str) -> Option<(Scale, Format)> {
    if let Some(step) = DECIMAL.iter().position(|known| *known == suffix) {
        return Some((Scale::Power10(step as i32 * 3 - 9), Format::Decimal));
    }
    if let Some(step) = BINARY.iter().position(|known| *known == suffix) {
        return Some((Scale::Power1024(step as u32), Format::Binary));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok()?;
    (-100..=100).contains(&exponent).then_some((Scale::Power10(exponent), Format::Exponent))
}

/// The digits as nano units, rounded up, saturating.
fn scaled(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    // 30 digits and the largest factor (2^60) fit into 127 bits only up to here; more is capped anyway.
    if digits.len() > 20 + fraction.len().min(9) {
        return WHOLE_MAX * NANO;
    }
    let mut number: i128 = digits.parse().unwrap_or(0);
    let power = match scale {
        Scale::Power10(exponent) => exponent + 9,
        Scale::Power1024(steps) => {
            let Some(product) = number.checked_mul(1_i128 << (10 * steps)) else { return WHOLE_MAX * NANO };
            number = product;
            9
        }
    } - i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    if power >= 0 {
        let factor = 10_i128.checked_pow(power.unsigned_abs());
        return factor.and_then(|factor| number.checked_mul(factor)).unwrap_or(WHOLE_MAX * NANO);
    }
    match 10_i128.checked_pow(power.unsigned_abs()) {
        Some(divisor) => round_up(number, divisor),
        None => i128::from(number != 0),
    }
}

/// Divides, rounding away from zero.
fn round_up(number: i128, divisor: i128) -> i128 {
    let quotient = number / divisor;
    if number % divisor == 0 { quotient } else { quotient + number.signum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_canonical() {
        let cases = [
            ("0", "0"),
            ("0Mi", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1500m", "1500m"),
            ("100000", "100k"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("12E2", "1200"),
            ("1E", "1E"),
            ("-1.5", "-1500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("100M", "100M"),
            ("128974848", "128974848"),
            ("+2", "2"),
            ("1Ki", "1Ki"),
            ("1000Ki", "1000Ki"),
            ("9223372036854775808", "9223372036854775807"),
        ];
        for (text, canonical) in cases {
            assert_eq!(Quantity::parse(text).expect(text).to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "a", "1 Gi", "1gi", "1.2.3", "--1", "1KiB", "e3", "1e", ".", "1K"] {
            assert_eq!(Quantity::parse(text).map(|quantity| quantity.to_string()), Err(QuantityError), "{text}");
        }
    }

    #[test]
    fn sums_keep_the_style_of_the_first() {
        let parse = |text| Quantity::parse(text).expect(text);
        assert_eq!(parse("1Gi").plus(parse("1Gi")).to_string(), "2Gi");
        assert_eq!(Quantity::ZERO.plus(parse("512Mi")).to_string(), "512Mi");
        assert_eq!(parse("1").minus(parse("250m")).to_string(), "750m");
        assert_eq!(parse("9E").plus(parse("9E")).to_string(), "9223372036854775807");
        assert_eq!(Quantity::count(3).to_string(), "3");
    }

    #[test]
    fn values_are_exact_and_compare() {
        let parse = |text| Quantity::parse(text).expect(text);
        assert_eq!(parse("250m").milli(), 250);
        assert_eq!(parse("1Mi").whole(), 1 << 20);
        assert_eq!(parse("1m").whole(), 1);
        assert!(parse("1Gi") > parse("1G") && parse("1") == parse("1000m"));
        assert_eq!(parse("1u").rounded_to_milli().to_string(), "1m");
    }
}
