//! JSONPath as `kubectl` and printer columns write it: `.status.conditions[?(@.type=="Ready")].status`.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// `*`
    Every,
    /// `..`: the value and everything below it.
    Descend,
    Index(i64),
    /// `[from:to:step]`
    Range(Option<i64>, Option<i64>, usize),
    /// `['a','b']` and `[0,2]`
    Union(Vec<Step>),
    Filter(Box<Filter>),
}

#[derive(Debug, Clone, PartialEq)]
struct Filter {
    left: Operand,
    /// None asks only whether the left side is there.
    right: Option<(Comparison, Operand)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    LessOrEqual,
    GreaterOrEqual,
    Less,
    Greater,
}

impl JsonPath {
    /// Reads the part between the braces; `None` if it is not understood.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim().strip_prefix(['$', '@']).unwrap_or(text.trim());
        let mut steps = Vec::new();
        while !rest.is_empty() {
            rest = if let Some(below) = rest.strip_prefix("..") {
                steps.push(Step::Descend);
                if below.starts_with('[') { below } else { field(below, &mut steps)? }
            } else if let Some(below) = rest.strip_prefix('.') {
                if below.is_empty() || below.starts_with('[') { below } else { field(below, &mut steps)? }
            } else if let Some(inside) = rest.strip_prefix('[') {
                let end = closing(inside)?;
                steps.push(bracket(inside[..end].trim())?);
                &inside[end + 1..]
            } else {
                field(rest, &mut steps)?
            };
        }
        Some(Self(steps))
    }

    /// Every value that the path leads to. What is missing is left out.
    pub(crate) fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.apply(value)).collect();
        }
        found
    }

    /// The names of a path that has nothing but fields.
    pub(crate) fn fields(&self) -> Option<Vec<&str>> {
        self.0.iter().map(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None }).collect()
    }
}

fn field<'a>(text: &'a str, steps: &mut Vec<Step>) -> Option<&'a str> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '.' | '[' => {
                end = at;
                break;
            }
            c => name.push(c),
        }
    }
    steps.push(if name == "*" { Step::Every } else { Step::Field(name) });
    Some(&text[end..])
}

/// Where the bracket that is open closes; brackets inside quotes and filters do not count.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    if let Some(filter) = text.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return Filter::parse(filter).map(|filter| Step::Filter(Box::new(filter)));
    }
    if text == "*" {
        return Some(Step::Every);
    }
    if let Some(name) = quoted(text) {
        return Some(Step::Field(name));
    }
    if text.contains(',') {
        return text.split(',').map(|part| bracket(part.trim())).collect::<Option<_>>().map(Step::Union);
    }
    if text.contains(':') {
        let mut parts = text.split(':').map(str::trim);
        let mut bound = || match parts.next() {
            None | Some("") => Some(None),
            Some(number) => number.parse().ok().map(Some),
        };
        let (from, to, step) = (bound()?, bound()?, bound()?);
        let step = usize::try_from(step.unwrap_or(1)).ok().filter(|step| *step > 0)?;
        return Some(Step::Range(from, to, step));
    }
    text.parse().ok().map(Step::Index)
}

fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains(quote)).then(|| inner.replace("\\.", "."))
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Field(name), Value::Object(object)) => object.get(name).into_iter().collect(),
            (Self::Every, Value::Object(object)) => object.values().collect(),
            (Self::Every, Value::Array(list)) => list.iter().collect(),
            (Self::Index(at), Value::Array(list)) => {
                place(*at, list.len()).and_then(|at| list.get(at)).into_iter().collect()
            }
            (Self::Range(from, to, step), Value::Array(list)) => {
                let bound = |at: Option<i64>, default| at.map_or(default, |at| place(at, list.len()).unwrap_or(0));
                let (from, to) = (bound(*from, 0), bound(*to, list.len()).min(list.len()));
                list.get(from..to).unwrap_or_default().iter().step_by(*step).collect()
            }
            (Self::Filter(filter), Value::Array(list)) => list.iter().filter(|item| filter.holds(item)).collect(),
            (Self::Filter(filter), Value::Object(_)) => {
                Some(value).filter(|value| filter.holds(value)).into_iter().collect()
            }
            (Self::Union(steps), value) => steps.iter().flat_map(|step| step.apply(value)).collect(),
            (Self::Descend, value) => {
                let mut all = vec![value];
                let mut next = 0;
                while let Some(value) = all.get(next).copied() {
                    all.extend(Self::Every.apply(value));
                    next += 1;
                }
                all
            }
            _ => Vec::new(),
        }
    }
}

/// Negative places count from the end.
fn place(at: i64, length: usize) -> Option<usize> {
    let from_end = usize::try_from(at.unsigned_abs()).ok()?;
    if at < 0 { length.checked_sub(from_end) } else { Some(from_end) }
}

impl Filter {
    fn parse(text: &str) -> Option<Self> {
        const SIGNS: [(&str, Comparison); 6] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let mut quote = None;
        for (at, c) in text.char_indices() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quote = Some(c),
                (None, _) => {
                    if let Some((sign, comparison)) = SIGNS.iter().find(|(sign, _)| text[at..].starts_with(sign)) {
                        let right = Operand::parse(&text[at + sign.len()..])?;
                        return Some(Self { left: Operand::parse(&text[..at])?, right: Some((*comparison, right)) });
                    }
                }
            }
        }
        Some(Self { left: Operand::parse(text)?, right: None })
    }

    fn holds(&self, item: &Value) -> bool {
        let left = self.left.value(item);
        match (&self.right, left) {
            (None, left) => left.is_some(),
            (Some((comparison, right)), Some(left)) => {
                right.value(item).is_some_and(|right| comparison.holds(left, right))
            }
            (Some(_), None) => false,
        }
    }
}

impl Operand {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(text) = quoted(text) {
            return Some(Self::Literal(text.into()));
        }
        if let Some(path) = text.strip_prefix('@') {
            return JsonPath::parse(path).map(Self::Path);
        }
        serde_json::from_str(text).ok().map(Self::Literal)
    }

    fn value<'a>(&'a self, item: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Path(path) => path.find(item).into_iter().next(),
            Self::Literal(value) => Some(value),
        }
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> bool {
        let order = match (left, right) {
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (left, right) => left.as_f64().zip(right.as_f64()).and_then(|(left, right)| left.partial_cmp(&right)),
        };
        let equal = order.map_or(left == right, std::cmp::Ordering::is_eq);
        match self {
            Self::Equal => equal,
            Self::NotEqual => !equal,
            Self::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Self::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
            Self::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Self::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let object =
            json!({"a": {"b.c": 1, "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}, {"n": "z"}]}, "t": [1, 2, 3]});
        let cases = [
            (".a.list[0].n", json!(["x"])),
            (".a.list[-1].n", json!(["z"])),
            (".a.list[*].n", json!(["x", "y", "z"])),
            (".a.list[?(@.n==\"y\")].v", json!([2])),
            (".a.list[?(@.v>1)].n", json!(["y"])),
            (".a.list[?(@.v)].n", json!(["x", "y"])),
            (".a.list[?(@.n!='x')].n", json!(["y", "z"])),
            (".a['b.c']", json!([1])),
            (".a.b\\.c", json!([1])),
            (".t[0:2]", json!([1, 2])),
            (".t[0,2]", json!([1, 3])),
            ("..v", json!([1, 2])),
            (".missing.x", json!([])),
            (".", json!([object])),
        ];
        for (path, found) in cases {
            let parsed = JsonPath::parse(path).expect(path);
            assert_eq!(json!(parsed.find(&object)), found, "{path}");
        }
        for path in [".a[", ".a[?(@.x==)]", ".a[x y]"] {
            assert_eq!(JsonPath::parse(path), None, "{path}");
        }
        assert_eq!(JsonPath::parse(".spec.a").expect("path").fields(), Some(vec!["spec", "a"]));
    }
}
