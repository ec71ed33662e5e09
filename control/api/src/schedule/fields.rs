//! The five fields of a schedule as upstream's parser reads them, spelled out as plain lists of numbers.

/// What a field may hold.
struct Bounds {
    min: u64,
    max: u64,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const BOUNDS: [Bounds; 5] = [
    Bounds { min: 0, max: 59, names: &[] },
    Bounds { min: 0, max: 23, names: &[] },
    Bounds { min: 1, max: 31, names: &[] },
    Bounds { min: 1, max: 12, names: MONTHS },
    Bounds { min: 0, max: 6, names: WEEKDAYS },
];

/// The same schedule without names, ranges and steps; the error is upstream's.
pub(super) fn plain(fields: [&str; 5]) -> Result<String, String> {
    let plain: Result<Vec<String>, String> =
        fields.iter().zip(&BOUNDS).map(|(field, bounds)| self::field(field, bounds)).collect();
    Ok(plain?.join(" "))
}

/// A list of ranges; `*` stays, because it means that the other of the two day fields decides alone.
fn field(text: &str, bounds: &Bounds) -> Result<String, String> {
    let (mut values, mut is_any) = (0_u64, false);
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let (found, any) = self::range(range, bounds)?;
        values |= found;
        is_any |= any;
    }
    if is_any {
        return Ok("*".into());
    }
    let listed = (bounds.min..=bounds.max).filter(|value| values & (1 << value) != 0);
    Ok(listed.map(|value| value.to_string()).collect::<Vec<_>>().join(","))
}

/// The values of a range as bits, and whether it stands for all.
fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (base, steps) = text.split_once('/').map_or((text, None), |(base, steps)| (base, Some(steps)));
    let ends: Vec<&str> = base.split('-').collect();
    let mut is_any = matches!(ends[0], "*" | "?");
    let (start, mut end) = match ends.as_slice() {
        _ if is_any => (bounds.min, bounds.max),
        [only] => number_or_name(only, bounds).map(|value| (value, value))?,
        [start, end] => (number_or_name(start, bounds)?, number_or_name(end, bounds)?),
        [start, ..] => {
            number_or_name(start, bounds)?;
            return Err(format!("too many hyphens: {text}"));
        }
        [] => (bounds.min, bounds.max),
    };
    let step = match steps {
        None => 1,
        Some(steps) if steps.contains('/') => return Err(format!("too many slashes: {text}")),
        Some(steps) => {
            let step = number(steps)?;
            if ends.len() == 1 {
                end = bounds.max;
            }
            is_any &= step <= 1;
            step
        }
    };
    if start < bounds.min {
        return Err(format!("beginning of range ({start}) below minimum ({}): {text}", bounds.min));
    }
    if end > bounds.max {
        return Err(format!("end of range ({end}) above maximum ({}): {text}", bounds.max));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let values = (start..=end).filter(|value| (value - start) % step == 0).fold(0, |bits, value| bits | 1 << value);
    Ok((values, is_any))
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let named = bounds.names.iter().zip(bounds.min..).find(|(name, _)| name.eq_ignore_ascii_case(text));
    named.map_or_else(|| number(text), |(_, value)| Ok(value))
}

fn number(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let why = if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        "invalid syntax"
    } else {
        match text.parse::<i64>() {
            Ok(value) => {
                return u64::try_from(value).map_err(|_| format!("negative number ({value}) not allowed: {text}"));
            }
            Err(_) => "value out of range",
        }
    };
    Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn fields_are_spelled_out() {
        let cases = [
            (["*/20", "1-3", "?", "jan,MAR", "mon-wed"], "0,20,40 1,2,3 * 1,3 1,2,3"),
            (["50/5", "*", "1-31/10", "*/1", "0,0"], "50,55 * 1,11,21,31 * 0"),
            (["*,5", ",3,", "*-5", "12", "6"], "* 3 * 12 6"),
        ];
        for (fields, expected) in cases {
            assert_eq!(plain(fields).as_deref(), Ok(expected), "{fields:?}");
        }
        assert_eq!(plain(["1/-2", "*", "*", "*", "*"]).unwrap_err(), "negative number (-2) not allowed: -2");
        let huge = "99999999999999999999";
        assert_eq!(
            plain([huge, "*", "*", "*", "*"]).unwrap_err(),
            format!("failed to parse int from {huge}: strconv.Atoi: parsing \"{huge}\": value out of range")
        );
    }
}
