//! What counts as a name: DNS names, label keys and values, ports, keys, each with upstream's complaint texts.

/// The alphabet of generated names: no vowels and nothing that reads like another character.
const SYSCTL_LENGTH_MAX: usize = 253;
const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
const GENERATED_NAME_LENGTH_MAX: usize = 63;

const LABEL_FORMAT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FORMAT: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const KEY_FORMAT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const KEY_RULE: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// A name rule of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// Dots allowed, at most 253 characters.
    Subdomain,
    /// One label of at most 63 characters.
    Label,
    /// One label that starts with a letter (Services, as far as upstream's older rule goes).
    Label1035,
    /// Anything that can be one path segment (RBAC).
    PathSegment,
}

impl NameRule {
    /// What is wrong with the name; a prefix may end with a dash, since something follows.
    #[must_use]
    pub fn complaints(self, name: &str, is_prefix: bool) -> Vec<String> {
        let masked = if is_prefix { mask_trailing_dash(name) } else { name.to_owned() };
        match self {
            Self::Subdomain => dns_subdomain(&masked),
            Self::Label => dns_label(&masked),
            Self::Label1035 => dns_label_1035(&masked),
            Self::PathSegment => path_segment(name, is_prefix),
        }
    }
}

/// A suffix for `generateName`, from 64 random bits.
#[must_use]
pub fn suffix(random: u64) -> String {
    let mut rest = random;
    (0..SUFFIX_LENGTH)
        .map(|_| {
            let index = (rest % SUFFIX_ALPHABET.len() as u64) as usize;
            rest /= SUFFIX_ALPHABET.len() as u64;
            char::from(SUFFIX_ALPHABET[index])
        })
        .collect()
}

/// The name that `generateName` and a suffix make; a long base is cut.
#[must_use]
pub fn generate(base: &str, suffix: &str) -> String {
    let longest = GENERATED_NAME_LENGTH_MAX.saturating_sub(suffix.len());
    let cut =
        base.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|&end| end <= longest).last().unwrap_or(0);
    format!("{}{suffix}", &base[..cut])
}

/// RFC 1123 subdomain.
#[must_use]
pub fn dns_subdomain(value: &str) -> Vec<String> {
    let mut complaints = too_long(value, 253);
    if !is_subdomain(value) {
        complaints.push(regex(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            SUBDOMAIN_FORMAT,
            &["example.com"],
        ));
    }
    complaints
}

/// RFC 1123 label.
#[must_use]
pub fn dns_label(value: &str) -> Vec<String> {
    let mut complaints = too_long(value, 63);
    if !is_label(value) {
        complaints.push(if is_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            regex(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                LABEL_FORMAT,
                &["my-name", "123-abc"],
            )
        });
    }
    complaints
}

/// RFC 1035 label.
#[must_use]
pub fn dns_label_1035(value: &str) -> Vec<String> {
    let mut complaints = too_long(value, 63);
    if !(is_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase())) {
        complaints.push(regex(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    complaints
}

/// `*.` and a subdomain.
#[must_use]
pub fn wildcard_subdomain(value: &str) -> Vec<String> {
    let mut complaints = too_long(value, 253);
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        complaints.push(regex(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["*.example.com"],
        ));
    }
    complaints
}

/// A label key, annotation key or other qualified name: optional DNS prefix, `/`, name.
#[must_use]
pub fn qualified_name(value: &str) -> Vec<String> {
    let parts: Vec<&str> = value.split('/').collect();
    let mut complaints = Vec::new();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                complaints.push("prefix part must be non-empty".to_owned());
            } else {
                complaints.extend(dns_subdomain(prefix).into_iter().map(|text| format!("prefix part {text}")));
            }
            name
        }
        _ => {
            let rule = regex(KEY_RULE, KEY_FORMAT, &["MyName", "my.name", "123-abc"]);
            return vec![format!(
                "a valid label key {rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        complaints.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_key(name) {
        complaints.push(format!("name part {}", regex(KEY_RULE, KEY_FORMAT, &["MyName", "my.name", "123-abc"])));
    }
    complaints
}

/// The value of a label.
#[must_use]
pub fn label_value(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > 63 {
        complaints.push("must be no more than 63 bytes".to_owned());
    }
    if !(value.is_empty() || is_key(value)) {
        complaints.push(regex(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    complaints
}

/// The name of a port: an IANA service name.
#[must_use]
pub fn port_name(value: &str) -> Vec<String> {
    let mut complaints = too_long(value, 15);
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        complaints.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        complaints.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        complaints.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        complaints.push("must not begin or end with a hyphen".to_owned());
    }
    complaints
}

/// A number that can be a port.
#[must_use]
pub fn port_number(value: i64) -> Vec<String> {
    if (1..=65_535).contains(&value) { Vec::new() } else { vec![range(1, 65_535)] }
}

/// A key of a ConfigMap or Secret: a file name.
#[must_use]
pub fn config_key(value: &str) -> Vec<String> {
    let mut complaints = too_long(value, 253);
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        complaints.push(regex(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    complaints.extend(match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    });
    complaints
}

/// A kernel parameter, with dots or slashes.
pub fn sysctl(name: &str) -> Vec<String> {
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        bytes.iter().all(inner) && edge(bytes.first()) && edge(bytes.last())
    };
    if name.len() <= SYSCTL_LENGTH_MAX && name.split(['.', '/']).all(is_part) {
        return Vec::new();
    }
    let pattern = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    vec![format!("must have at most {SYSCTL_LENGTH_MAX} characters and match regex {pattern}")]
}

/// The name of an environment variable: any printable ASCII but `=`.
#[must_use]
pub fn environment_name(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.is_empty() {
        complaints.push("environment variable name must be non-empty".to_owned());
    }
    if !value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        complaints.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    complaints
}

/// A name of an HTTP header.
#[must_use]
pub fn http_header(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![regex(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// `25%`.
#[must_use]
pub fn percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    vec![regex("a valid percent string must be a numeric string followed by an ending '%'", "[0-9]+%", &["1%", "93%"])]
}

/// One segment of a URL path.
#[must_use]
pub fn path_segment(value: &str, is_prefix: bool) -> Vec<String> {
    if !is_prefix && (value == "." || value == "..") {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"].iter().filter(|&&bad| value.contains(bad)).map(|bad| format!("may not contain '{bad}'")).collect()
}

/// "must be between … and …, inclusive".
#[must_use]
pub fn range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn is_label(value: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = value.as_bytes();
    bytes.first().is_some_and(|&b| alphanumeric(b))
        && bytes.last().is_some_and(|&b| alphanumeric(b))
        && bytes.iter().all(|&b| alphanumeric(b) || b == b'-')
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

fn is_key(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// As upstream, a trailing dash goes together with the character before it and is replaced by a letter.
fn mask_trailing_dash(name: &str) -> String {
    match name.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let mut chars = rest.chars();
            chars.next_back();
            format!("{}a", chars.as_str())
        }
        _ => name.to_owned(),
    }
}

fn too_long(value: &str, longest: usize) -> Vec<String> {
    if value.len() > longest { vec![format!("must be no more than {longest} characters")] } else { Vec::new() }
}

fn regex(rule: &str, format: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{rule} (e.g. {}regex used for validation is '{format}')", examples.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subdomains() {
        for good in ["a", "a.b", "a-b.c-d", "0.1"] {
            assert_eq!(dns_subdomain(good), Vec::<String>::new(), "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a."] {
            assert_eq!(dns_subdomain(bad).len(), 1, "{bad}");
        }
        assert_eq!(
            dns_subdomain("Web"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(dns_subdomain(&"a".repeat(254)), ["must be no more than 253 characters"]);
    }

    #[test]
    fn labels() {
        assert_eq!(dns_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(dns_label(&"a".repeat(63)), Vec::<String>::new());
        assert!(dns_label_1035("1a")[0].starts_with("a DNS-1035 label"));
    }

    #[test]
    fn qualified_names() {
        for good in ["a", "A.b_c-d", "example.com/a", "kubernetes.io/metadata.name"] {
            assert_eq!(qualified_name(good), Vec::<String>::new(), "{good}");
        }
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_name("")[0], "name part must be non-empty");
        assert_eq!(qualified_name(&"a".repeat(64)), ["name part must be no more than 63 bytes"]);
        assert!(qualified_name("a/b/c")[0].starts_with("a valid label key must consist"));
    }

    #[test]
    fn other_names() {
        assert!(port_name("http-2").is_empty());
        assert_eq!(port_name("80"), ["must contain at least one letter (a-z)"]);
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
        assert_eq!(config_key(".."), ["must not be '..'"]);
        assert!(config_key("tls.crt").is_empty());
        assert!(percent("25%").is_empty() && !percent("%").is_empty() && !percent("25").is_empty());
        assert_eq!(path_segment("a/b", false), ["may not contain '/'"]);
        assert!(NameRule::PathSegment.complaints("system:node", false).is_empty());
        assert!(wildcard_subdomain("*.a.b").is_empty() && !wildcard_subdomain("*a.b").is_empty());
    }

    #[test]
    fn a_prefix_may_end_with_a_dash() {
        assert!(NameRule::Subdomain.complaints("web-", true).is_empty());
        assert!(!NameRule::Subdomain.complaints("web-", false).is_empty());
    }

    #[test]
    fn generated_names_fit_into_a_label() {
        assert_eq!(suffix(0), "bbbbb");
        assert_eq!(suffix(u64::MAX).len(), 5);
        assert_eq!(generate("web-", "x2z4c"), "web-x2z4c");
        assert_eq!(generate(&"a".repeat(80), "x2z4c").len(), 63);
    }
}
