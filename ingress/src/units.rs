//! Durations and sizes as people write them in flags and annotations.

use std::time::Duration;

/// `500ms`, `30s`, `5m`; without a unit, seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let number: u64 = number.parse().map_err(|_| "not a duration; write 500ms, 30s or 5m".to_owned())?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs).ok_or("too long".to_owned());
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "m" => seconds(60),
        _ => Err(format!("unknown unit {unit:?}; write 500ms, 30s or 5m")),
    }
}

/// `8k`, `1m`, `2g`, in powers of 1024; without a unit, bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let number: u64 = number.parse().map_err(|_| "not a size; write 512, 8k, 1m or 2g".to_owned())?;
    let shift = match unit {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return Err(format!("unknown unit {unit:?}; write 512, 8k, 1m or 2g")),
    };
    number.checked_mul(1 << shift).ok_or("too large".to_owned())
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{parse_duration, parse_size};

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["soon", "3h", "", "-1s", "18446744073709551615m"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!((parse_size("512"), parse_size("8k"), parse_size("1M")), (Ok(512), Ok(8192), Ok(1 << 20)));
        for bad in ["", "k", "1t", "1.5m", "18446744073709551615g"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
