//! Formats of strings that a schema can ask for. Unknown ones ask for nothing, as upstream.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Type;
use crate::names;

const STRINGS: [&str; 26] = [
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

/// Whether a format means something for values of this type.
pub(super) fn is_known(format: &str, kind: Option<Type>) -> bool {
    match kind {
        None | Some(Type::String) => STRINGS.contains(&format.replace('-', "").as_str()),
        Some(Type::Integer) => matches!(format, "int32" | "int64"),
        Some(Type::Number) => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Whether a string has the format.
pub(super) fn holds(format: &str, text: &str) -> bool {
    let is_hex = |text: &str, lengths: &[usize]| {
        lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    match format.replace('-', "").as_str() {
        "bsonobjectid" => is_hex(text, &[24]),
        "byte" => !text.is_empty() && STANDARD.decode(text).is_ok(),
        "cidr" => is_cidr(text),
        "creditcard" => is_credit_card(text),
        "date" => is_date(text),
        "datetime" => is_date_time(text),
        "duration" => is_duration(text),
        "email" => is_email(text),
        "hexcolor" => is_hex(text.strip_prefix('#').unwrap_or(text), &[3, 6]),
        "hostname" => is_hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "k8slongname" => names::dns_subdomain(text).is_empty(),
        "k8sshortname" => names::dns_label(text).is_empty(),
        "mac" => is_mac(text),
        "rgbcolor" => is_rgb_color(text),
        "ssn" => is_ssn(text),
        "uri" => is_uri(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some(b'3')),
        "uuid4" => is_uuid(text, Some(b'4')),
        "uuid5" => is_uuid(text, Some(b'5')),
        _ => true,
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let max = if address.parse::<Ipv4Addr>().is_ok() {
        32
    } else if address.parse::<Ipv6Addr>().is_ok() {
        128
    } else {
        return false;
    };
    is_digits(length) && length.parse::<u8>().is_ok_and(|length| length <= max)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_date_time(text: &str) -> bool {
    let has_zone = |time: &str| time.ends_with(['Z', 'z']) || time.contains(['+', '-']);
    let upper = text.to_uppercase();
    upper
        .split_once('T')
        .is_some_and(|(date, time)| is_date(date) && has_zone(time) && upper.parse::<jiff::Timestamp>().is_ok())
}

/// Go's durations (`1h2m`), or numbers with a unit in words (`3 days`).
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 8] = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
    const WORDS: [&str; 8] = ["nano", "micro", "milli", "sec", "min", "hour", "day", "week"];
    let unsigned = text.trim_start_matches(['+', '-']);
    if unsigned == "0" {
        return true;
    }
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut rest = unsigned;
    let mut is_go = !rest.is_empty();
    while is_go && !rest.is_empty() {
        let number = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
        let unit = rest[number..].find(is_number).map_or(rest.len(), |at| number + at);
        is_go = rest[..number].parse::<f64>().is_ok() && UNITS.contains(&&rest[number..unit]);
        rest = &rest[unit..];
    }
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = unit.trim().to_lowercase();
    let in_words = is_digits(number)
        && (WORDS.iter().any(|word| unit.starts_with(word))
            || UNITS.contains(&unit.as_str())
            || unit == "d"
            || unit == "w");
    is_go || in_words
}

fn is_email(text: &str) -> bool {
    // `Name <address>` is an address too.
    let address = match (text.rfind('<'), text.strip_suffix('>')) {
        (Some(start), Some(text)) => &text[start + 1..],
        _ => text,
    };
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && !"()<>[]:;,\\\"@".contains(c);
    let parts = |text: &str| text.split('.').all(|part| !part.is_empty() && part.chars().all(allowed));
    address.rsplit_once('@').is_some_and(|(local, domain)| parts(local) && parts(domain))
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-' || !c.is_ascii())
    };
    let top = |label: &str| label.chars().count() >= 2 && label.chars().all(char::is_alphabetic);
    text.len() <= 255 && text.split('.').all(label) && (!text.contains('.') || text.rsplit('.').next().is_some_and(top))
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, width: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len())
            && parts.iter().all(|part| part.len() == width && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

fn is_rgb_color(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    let is_part = |part: &str| is_digits(part.trim()) && part.trim().parse::<u8>().is_ok();
    inner.is_some_and(|inner| inner.split(',').count() == 3 && inner.split(',').all(is_part))
}

fn is_ssn(text: &str) -> bool {
    let digits: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let separators = text.len() - digits.len();
    digits.len() == 9 && is_digits(&digits) && separators <= 2
}

/// A request URI: absolute, or a path from the root.
fn is_uri(text: &str) -> bool {
    let is_clean = text.chars().all(|c| !c.is_control() && c != ' ');
    let scheme = text.split_once(':').map(|(scheme, _)| scheme).unwrap_or_default();
    let has_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_clean && (text.starts_with('/') || has_scheme)
}

fn is_uuid(text: &str, version: Option<u8>) -> bool {
    let parts: [usize; 5] = [8, 4, 4, 4, 12];
    let mut rest = text;
    for (at, length) in parts.into_iter().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some((part, after)) = rest.split_at_checked(length) else { return false };
        if !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return false;
        }
        let first = part.as_bytes()[0].to_ascii_lowercase();
        let is_variant = matches!(version, Some(b'4' | b'5'));
        if (at == 2 && version.is_some_and(|version| first != version))
            || (at == 3 && is_variant && !b"89ab".contains(&first))
        {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

fn only_digits(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '-' | ' ')).collect()
}

fn is_isbn10(text: &str) -> bool {
    let digits = only_digits(text);
    let value = |(at, c): (usize, char)| match c {
        'X' if at == 9 => Some(10),
        c => c.to_digit(10),
    };
    let values: Option<Vec<u32>> = digits.chars().enumerate().map(value).collect();
    values.is_some_and(|values| {
        values.len() == 10 && (1..).zip(&values).map(|(weight, value)| weight * value).sum::<u32>() % 11 == 0
    })
}

fn is_isbn13(text: &str) -> bool {
    let values: Option<Vec<u32>> = only_digits(text).chars().map(|c| c.to_digit(10)).collect();
    values.is_some_and(|values| {
        let weighted = values.iter().enumerate().map(|(at, value)| if at % 2 == 0 { *value } else { 3 * value });
        values.len() == 13 && weighted.sum::<u32>() % 10 == 0
    })
}

fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let doubled = |(at, digit): (usize, &u32)| match (at % 2, digit * 2) {
        (0, _) => *digit,
        (_, double) if double > 9 => double - 9,
        (_, double) => double,
    };
    (13..=16).contains(&digits.len()) && digits.iter().rev().enumerate().map(doubled).sum::<u32>() % 10 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_hold_or_not() {
        let cases: [(&str, &[&str], &[&str]); 19] = [
            ("date", &["2026-02-28"], &["2026-02-30", "2026-2-3", "x"]),
            (
                "date-time",
                &["2014-12-15T19:30:20.000Z", "2014-12-15t19:30:20+01:00"],
                &["2014-12-15", "2014-12-15T19:30:20"],
            ),
            ("duration", &["22 ns", "1h30m", "-5s", "3 days", "0"], &["", "5", "h", "1x"]),
            ("email", &["a@b.c", "A <a@b.c>"], &["a", "@b", "a b@c"]),
            ("hostname", &["example.com", "a-b", "localhost"], &["-a", "a..b", "a_b", "a.1"]),
            ("ipv4", &["10.0.0.1"], &["10.0.0", "::1"]),
            ("ipv6", &["fd00::1"], &["10.0.0.1", "g::"]),
            ("cidr", &["10.0.0.0/8", "fd00::/64"], &["10.0.0.0", "10.0.0.0/33", "x/8"]),
            ("mac", &["01:02:03:04:05:ab", "0102.0304.05ab"], &["01:02", "01:02:03:04:05:xy"]),
            ("uuid", &["123e4567-e89b-12d3-a456-426614174000", "123E4567e89b12d3a456426614174000"], &["123e4567", ""]),
            ("uuid4", &["123e4567-e89b-42d3-a456-426614174000"], &["123e4567-e89b-12d3-a456-426614174000"]),
            ("byte", &["aGk="], &["", "a"]),
            ("hexcolor", &["#FFFFFF", "abc"], &["#ffff", "xyz"]),
            ("rgbcolor", &["rgb(1, 2,255)"], &["rgb(1,2)", "rgb(1,2,256)"]),
            ("isbn10", &["0321751043"], &["0321751044"]),
            ("isbn13", &["978-0321751041"], &["978-0321751042"]),
            ("uri", &["https://a/b", "/a"], &["a b", "a", ""]),
            ("k8s-short-name", &["a-b"], &["a.b", "A"]),
            ("ssn", &["123-45-6789"], &["123-45-678"]),
        ];
        for (format, good, bad) in cases {
            assert!(is_known(format, Some(Type::String)), "{format}");
            for text in good {
                assert!(holds(format, text), "{format}: {text}");
            }
            for text in bad {
                assert!(!holds(format, text), "{format}: {text}");
            }
        }
        assert!(holds("unheard-of", "x") && !is_known("unheard-of", None) && !is_known("int32", Some(Type::Number)));
    }
}
