//! What expressions can call: the language's own functions, and those that Kubernetes adds.

use std::net::IpAddr;
use std::rc::Rc;

use jiff::Timestamp;

use super::eval::{Budget, Failure, OVERFLOW, Result, is_canonical, no_overload, told};
use super::network::{self, Cidr};
use super::strings;
use super::value::{Value, url};
use crate::custom::Pattern;
use crate::duration;
use crate::names;
use crate::quantity::Quantity;

/// Functions that are called by name alone, or on one of the libraries.
pub(super) const GLOBAL: [&str; 29] = [
    "bool",
    "bytes",
    "cidr",
    "double",
    "duration",
    "dyn",
    "format.named",
    "int",
    "ip",
    "isCIDR",
    "isIP",
    "isQuantity",
    "isURL",
    "ip.isCanonical",
    "matches",
    "optional.none",
    "optional.of",
    "optional.ofNonZeroValue",
    "quantity",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "size",
    "string",
    "strings.quote",
    "timestamp",
    "type",
    "uint",
    "url",
];

fn int(number: Option<i64>) -> Result<Value<'static>> {
    number.map_or_else(|| told(OVERFLOW), |number| Ok(Value::Int(number)))
}

fn length(count: usize) -> Value<'static> {
    Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

fn all<'a>(list: &Value<'a>) -> Vec<Value<'a>> {
    (0..list.size().unwrap_or(0)).filter_map(|at| list.item(at)).collect()
}

/// What comparing two values looks at.
fn weight(value: &Value<'_>) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list, _) => list.len() * 10,
        Value::Object(map, _) => map.len() * 10,
        Value::List(list) => list.len() * 10,
        Value::Map(map) => map.len() * 10,
        _ => 0,
    }
}

pub(super) fn binary<'a>(sign: &str, left: &Value<'a>, right: &Value<'a>, budget: &mut Budget) -> Result<Value<'a>> {
    budget.spend_text(weight(left).min(weight(right)))?;
    let ordered = |holds: fn(std::cmp::Ordering) -> bool| match left.compare(right) {
        Some(order) => Ok(Value::Bool(holds(order))),
        None => no_overload(),
    };
    match sign {
        "==" => Ok(Value::Bool(left.same(right))),
        "!=" => Ok(Value::Bool(!left.same(right))),
        "<" => ordered(std::cmp::Ordering::is_lt),
        "<=" => ordered(std::cmp::Ordering::is_le),
        ">" => ordered(std::cmp::Ordering::is_gt),
        ">=" => ordered(std::cmp::Ordering::is_ge),
        "in" => {
            budget.spend(right.size().unwrap_or(0) as u64)?;
            match right {
                Value::Array(..) | Value::List(_) => Ok(Value::Bool(all(right).iter().any(|item| item.same(left)))),
                Value::Object(..) | Value::Map(_) => Ok(Value::Bool(right.at(left).is_some())),
                _ => no_overload(),
            }
        }
        _ => arithmetic(sign, left, right, budget),
    }
}

fn arithmetic<'a>(sign: &str, left: &Value<'a>, right: &Value<'a>, budget: &mut Budget) -> Result<Value<'a>> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => match sign {
            "+" => int(left.checked_add(*right)),
            "-" => int(left.checked_sub(*right)),
            "*" => int(left.checked_mul(*right)),
            "/" | "%" if *right == 0 => told(if sign == "/" { "division by zero" } else { "modulus by zero" }),
            "/" => int(left.checked_div(*right)),
            _ => int(left.checked_rem(*right)),
        },
        (Value::Uint(left), Value::Uint(right)) => {
            let result = match sign {
                "+" => left.checked_add(*right),
                "-" => left.checked_sub(*right),
                "*" => left.checked_mul(*right),
                _ if *right == 0 => return told(if sign == "/" { "division by zero" } else { "modulus by zero" }),
                "/" => left.checked_div(*right),
                _ => left.checked_rem(*right),
            };
            result.map_or_else(|| told("unsigned integer overflow"), |number| Ok(Value::Uint(number)))
        }
        (Value::Double(left), Value::Double(right)) => Ok(Value::Double(match sign {
            "+" => left + right,
            "-" => left - right,
            "*" => left * right,
            "/" => left / right,
            _ => return no_overload(),
        })),
        (Value::String(left), Value::String(right)) if sign == "+" => {
            budget.spend_text(left.len() + right.len())?;
            Ok(Value::text(format!("{left}{right}")))
        }
        (Value::Array(..) | Value::List(_), Value::Array(..) | Value::List(_)) if sign == "+" => {
            budget.spend(weight(left) as u64 + weight(right) as u64)?;
            Ok(Value::list(all(left).into_iter().chain(all(right)).collect()))
        }
        (Value::Duration(left), Value::Duration(right)) => {
            let result = if sign == "+" { left.checked_add(*right) } else { left.checked_sub(*right) };
            match sign {
                "+" | "-" => result.map_or_else(|| told("duration overflow"), |time| Ok(Value::Duration(time))),
                _ => no_overload(),
            }
        }
        (Value::Timestamp(time), Value::Duration(by)) | (Value::Duration(by), Value::Timestamp(time)) => {
            let by = jiff::SignedDuration::from_nanos(*by);
            let result = match sign {
                "+" => time.checked_add(by),
                "-" => time.checked_sub(by),
                _ => return no_overload(),
            };
            result.map_or_else(|_| told("timestamp overflow"), |time| Ok(Value::Timestamp(time)))
        }
        (Value::Timestamp(left), Value::Timestamp(right)) if sign == "-" => {
            let nanoseconds = left.as_nanosecond() - right.as_nanosecond();
            i64::try_from(nanoseconds).map_or_else(|_| told("duration overflow"), |time| Ok(Value::Duration(time)))
        }
        _ => no_overload(),
    }
}

/// A function without something that it is called on.
pub(super) fn call<'a>(name: &str, args: &[Value<'a>], budget: &mut Budget) -> Result<Value<'a>> {
    match (name, args) {
        ("size", [value]) => value.size().map_or_else(no_overload, |count| Ok(length(count))),
        ("dyn", [value]) => Ok(value.clone()),
        ("type", [value]) => Ok(Value::Type(value.type_name())),
        ("matches", [text, _]) => method(text, "matches", &args[1..], budget),
        ("optional.none", []) => Ok(Value::Optional(None)),
        ("optional.of", [value]) => Ok(Value::Optional(Some(Rc::new(value.clone())))),
        ("optional.ofNonZeroValue", [value]) => Ok(Value::Optional((!is_zero(value)).then(|| Rc::new(value.clone())))),
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [one, other]) => {
            budget.spend((one.size().unwrap_or(0) * other.size().unwrap_or(0)) as u64)?;
            let (one, other) = (all(one), all(other));
            let has = |list: &[Value<'a>], item: &Value<'a>| list.iter().any(|known| known.same(item));
            let contains = other.iter().all(|item| has(&one, item));
            Ok(Value::Bool(match name {
                "sets.contains" => contains,
                "sets.equivalent" => contains && one.iter().all(|item| has(&other, item)),
                _ => other.iter().any(|item| has(&one, item)),
            }))
        }
        ("strings.quote", [Value::String(text)]) => Ok(Value::text(format!("{text:?}"))),
        ("format.named", [Value::String(name)]) => Ok(match format(name) {
            Ok(format) => Value::Optional(Some(Rc::new(format))),
            Err(_) => Value::Optional(None),
        }),
        (_, [Value::String(text)]) => of_text(name, text),
        (_, [value]) => convert(name, value),
        _ => no_overload(),
    }
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) | Value::Optional(None) => true,
        Value::Double(number) => *number == 0.0,
        value => value.size() == Some(0),
    }
}

/// Conversions of strings, and questions about them.
fn of_text<'a>(name: &str, text: &Rc<str>) -> Result<Value<'a>> {
    let wrong = |what: &str| told(format!("{what} {text:?}"));
    match name {
        "string" => Ok(Value::String(Rc::clone(text))),
        "bytes" => Ok(Value::Bytes(text.as_bytes().into())),
        "bool" => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => told("type conversion error from 'string' to 'bool'"),
        },
        "int" => {
            text.parse().map_or_else(|_| told("type conversion error from 'string' to 'int'"), |n| Ok(Value::Int(n)))
        }
        "uint" => {
            text.parse().map_or_else(|_| told("type conversion error from 'string' to 'uint'"), |n| Ok(Value::Uint(n)))
        }
        "double" => text
            .parse()
            .map_or_else(|_| told("type conversion error from 'string' to 'double'"), |n| Ok(Value::Double(n))),
        "duration" => duration::parse(text).map_or_else(
            || {
                told(format!(
                    "type conversion error from 'string' to 'google.protobuf.Duration': time: invalid duration {text:?}"
                ))
            },
            |time| Ok(Value::Duration(time)),
        ),
        "timestamp" => text.parse::<Timestamp>().map_or_else(
            |_| told("type conversion error from 'string' to 'google.protobuf.Timestamp'"),
            |time| Ok(Value::Timestamp(time)),
        ),
        "isIP" => Ok(Value::Bool(network::address(text).is_some())),
        "ip" => network::address(text)
            .map_or_else(|| wrong("IP Address string parse error from string"), |ip| Ok(Value::Ip(ip))),
        "ip.isCanonical" => match network::address(text) {
            Some(address) => Ok(Value::Bool(is_canonical(text, address))),
            None => wrong("IP Address string parse error from string"),
        },
        "isCIDR" => Ok(Value::Bool(Cidr::parse(text).is_some())),
        "cidr" => Cidr::parse(text)
            .map_or_else(|| wrong("network address parse error from string"), |cidr| Ok(Value::Cidr(cidr))),
        "isQuantity" => Ok(Value::Bool(Quantity::parse(text).is_ok())),
        "quantity" => match Quantity::parse(text) {
            Ok(quantity) => Ok(Value::Quantity(quantity)),
            Err(error) => told(error.to_string()),
        },
        "isURL" => Ok(Value::Bool(url::parse(text).is_some())),
        "url" => {
            url::parse(text).map_or_else(|| wrong("URL parse error from string"), |url| Ok(Value::Url(Rc::new(url))))
        }
        _ => no_overload(),
    }
}

fn convert<'a>(name: &str, value: &Value<'a>) -> Result<Value<'a>> {
    match (name, value) {
        ("int", Value::Int(_)) | ("uint", Value::Uint(_)) | ("double", Value::Double(_)) | ("bool", Value::Bool(_)) => {
            Ok(value.clone())
        }
        ("int", Value::Uint(number)) => int(i64::try_from(*number).ok()),
        ("int", Value::Double(number)) if number.abs() < 9.2e18 => Ok(Value::Int(*number as i64)),
        ("int", Value::Timestamp(time)) => Ok(Value::Int(time.as_second())),
        ("uint", Value::Int(number)) => {
            u64::try_from(*number).map_or_else(|_| told("unsigned integer overflow"), |number| Ok(Value::Uint(number)))
        }
        ("double", number) if number.double().is_some() => Ok(Value::Double(number.double().unwrap_or(0.0))),
        ("duration", Value::Duration(_)) | ("timestamp", Value::Timestamp(_)) => Ok(value.clone()),
        ("string", Value::Int(number)) => Ok(Value::text(number.to_string())),
        ("string", Value::Uint(number)) => Ok(Value::text(number.to_string())),
        ("string", Value::Double(number)) => Ok(Value::text(number.to_string())),
        ("string", Value::Bool(flag)) => Ok(Value::text(flag.to_string())),
        ("string", Value::Timestamp(time)) => Ok(Value::text(time.to_string())),
        ("string", Value::Duration(time)) => Ok(Value::text(format!("{}s", *time as f64 / 1e9))),
        ("string", Value::Ip(address)) => Ok(Value::text(address.to_string())),
        ("string", Value::Cidr(cidr)) => Ok(Value::text(cidr.to_string())),
        ("string", Value::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::text(text)),
            Err(_) => told("invalid UTF-8 in bytes, cannot convert to string"),
        },
        _ => no_overload(),
    }
}

/// A format by the name of its function or of itself.
pub(super) fn format(name: &str) -> Result<Value<'static>> {
    const FORMATS: [&str; 10] = [
        "dns1123Label",
        "dns1123Subdomain",
        "dns1035Label",
        "qualifiedName",
        "labelValue",
        "uri",
        "uuid",
        "byte",
        "date",
        "datetime",
    ];
    match FORMATS.iter().find(|known| **known == name) {
        Some(known) => Ok(Value::Format(known)),
        None => told(format!("no such format: {name}")),
    }
}

fn validate<'a>(format: &str, text: &str) -> Value<'a> {
    let holds = |holds: bool, why: &str| if holds { Vec::new() } else { vec![why.to_owned()] };
    let complaints = match format {
        "dns1123Label" => names::dns_label(text),
        "dns1123Subdomain" => names::dns_subdomain(text),
        "dns1035Label" => names::dns_label_1035(text),
        "qualifiedName" => names::qualified_name(text),
        "labelValue" => names::label_value(text),
        "uri" => holds(url::parse(text).is_some(), "invalid URI"),
        "datetime" => holds(crate::custom::format::holds("date-time", text), "invalid datetime"),
        other => holds(crate::custom::format::holds(other, text), "does not match the format"),
    };
    let complaints: Vec<Value<'a>> = complaints.into_iter().map(Value::text).collect();
    Value::Optional((!complaints.is_empty()).then(|| Rc::new(Value::list(complaints))))
}

/// A function that is called on a value.
pub(super) fn method<'a>(on: &Value<'a>, name: &str, args: &[Value<'a>], budget: &mut Budget) -> Result<Value<'a>> {
    match (on, name, args) {
        (on, "size", []) => on.size().map_or_else(no_overload, |count| Ok(length(count))),
        (Value::String(text), "matches", [Value::String(pattern)]) => {
            budget.spend_text(text.len().saturating_mul(pattern.len().div_ceil(4)))?;
            let matched = Pattern::new(pattern).matches(text).map_err(str::to_owned);
            matched.map(Value::Bool).or_else(|why| told(format!("error parsing regexp: {why}")))
        }
        (Value::String(text), _, _) => strings::method(text, name, args, budget),
        (Value::Array(..) | Value::List(_), _, _) => list_method(on, name, args, budget),
        (Value::Optional(inner), _, _) => optional_method(on, inner.as_deref(), name, args),
        (Value::Format(format), "validate", [Value::String(text)]) => Ok(validate(format, text)),
        (Value::Ip(address), _, []) => ip_method(*address, name),
        (Value::Cidr(cidr), _, _) => cidr_method(*cidr, name, args),
        (Value::Quantity(quantity), _, _) => quantity_method(*quantity, name, args),
        (Value::Url(url), _, []) => match name {
            "getScheme" => Ok(Value::text(url.scheme.as_str())),
            "getHost" => Ok(Value::text(url.host.as_str())),
            "getHostname" => {
                let host = url.host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
                let host = host.map_or(url.host.as_str(), |(host, _)| host);
                Ok(Value::text(host.trim_start_matches('[').trim_end_matches(']')))
            }
            "getPort" => {
                let port = url.host.rsplit_once(':').map_or("", |(_, port)| port);
                Ok(Value::text(if port.bytes().all(|byte| byte.is_ascii_digit()) { port } else { "" }))
            }
            "getEscapedPath" => Ok(Value::text(url.path.as_str())),
            _ => no_overload(),
        },
        (Value::Duration(time), _, []) => match name {
            "getHours" => Ok(Value::Int(time / 3_600_000_000_000)),
            "getMinutes" => Ok(Value::Int(time / 60_000_000_000)),
            "getSeconds" => Ok(Value::Int(time / 1_000_000_000)),
            "getMilliseconds" => Ok(Value::Int(time / 1_000_000 % 1000)),
            _ => no_overload(),
        },
        (Value::Timestamp(time), _, []) => time_method(*time, name),
        _ => no_overload(),
    }
}

fn list_method<'a>(on: &Value<'a>, name: &str, args: &[Value<'a>], budget: &mut Budget) -> Result<Value<'a>> {
    budget.spend(on.size().unwrap_or(0) as u64)?;
    let items = all(on);
    let extreme = |wanted: std::cmp::Ordering| {
        let mut found: Option<&Value<'a>> = None;
        for item in &items {
            match found.map(|found| item.compare(found)) {
                Some(None) => return no_overload(),
                Some(Some(order)) if order != wanted => {}
                _ => found = Some(item),
            }
        }
        found.cloned().map_or_else(|| told(format!("{name} called on empty list")), Ok)
    };
    match (name, args) {
        ("isSorted", []) => {
            let orders: Option<Vec<_>> = items.windows(2).map(|pair| pair[0].compare(&pair[1])).collect();
            orders.map_or_else(no_overload, |orders| Ok(Value::Bool(orders.iter().all(|order| order.is_le()))))
        }
        ("sum", []) => {
            let mut items = items.iter();
            let Some(first) = items.next() else { return Ok(Value::Int(0)) };
            items.try_fold(first.clone(), |sum, item| arithmetic("+", &sum, item, budget))
        }
        ("min", []) => extreme(std::cmp::Ordering::Less),
        ("max", []) => extreme(std::cmp::Ordering::Greater),
        ("indexOf", [item]) => Ok(items.iter().position(|other| other.same(item)).map_or(Value::Int(-1), length)),
        ("lastIndexOf", [item]) => Ok(items.iter().rposition(|other| other.same(item)).map_or(Value::Int(-1), length)),
        ("join", [] | [Value::String(_)]) => {
            let by = if let [Value::String(by)] = args { by } else { "" };
            let texts: Option<Vec<&str>> =
                items.iter().map(|item| if let Value::String(text) = item { Some(&**text) } else { None }).collect();
            let Some(texts) = texts else { return no_overload() };
            budget.spend_text(texts.iter().map(|text| text.len() + by.len()).sum())?;
            Ok(Value::text(texts.join(by)))
        }
        ("reverse", []) => Ok(Value::list(items.into_iter().rev().collect())),
        ("first", []) => Ok(Value::Optional(items.first().cloned().map(Rc::new))),
        ("last", []) => Ok(Value::Optional(items.last().cloned().map(Rc::new))),
        _ => no_overload(),
    }
}

fn optional_method<'a>(on: &Value<'a>, inner: Option<&Value<'a>>, name: &str, args: &[Value<'a>]) -> Result<Value<'a>> {
    match (name, args) {
        ("hasValue", []) => Ok(Value::Bool(inner.is_some())),
        ("value", []) => inner.cloned().map_or_else(|| told("optional.none() dereference"), Ok),
        ("orValue", [other]) => Ok(inner.cloned().unwrap_or_else(|| other.clone())),
        ("or", [other]) => Ok(if inner.is_some() { on.clone() } else { other.clone() }),
        _ => no_overload(),
    }
}

fn ip_method<'a>(address: IpAddr, name: &str) -> Result<Value<'a>> {
    let is_link_local = |multicast: bool| match address {
        IpAddr::V4(v4) if multicast => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) if multicast => v6.segments()[0] & 0xff0f == 0xff02,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    Ok(match name {
        "family" => Value::Int(if address.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Value::Bool(address.is_unspecified()),
        "isLoopback" => Value::Bool(address.is_loopback()),
        "isLinkLocalMulticast" => Value::Bool(is_link_local(true)),
        "isLinkLocalUnicast" => Value::Bool(is_link_local(false)),
        "isGlobalUnicast" => {
            let is_other =
                address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_link_local(false);
            Value::Bool(!is_other)
        }
        _ => return no_overload(),
    })
}

fn cidr_method<'a>(cidr: Cidr, name: &str, args: &[Value<'a>]) -> Result<Value<'a>> {
    let bad = || told("network address parse error");
    Ok(match (name, args) {
        ("containsIP", [Value::Ip(address)]) => Value::Bool(cidr.contains(*address)),
        ("containsIP", [Value::String(text)]) => match network::address(text) {
            Some(address) => Value::Bool(cidr.contains(address)),
            None => return bad(),
        },
        ("containsCIDR", [Value::Cidr(other)]) => Value::Bool(cidr.contains_cidr(*other)),
        ("containsCIDR", [Value::String(text)]) => match Cidr::parse(text) {
            Some(other) => Value::Bool(cidr.contains_cidr(other)),
            None => return bad(),
        },
        ("ip", []) => Value::Ip(cidr.address),
        ("masked", []) => Value::Cidr(cidr.masked()),
        ("prefixLength", []) => Value::Int(i64::from(cidr.prefix)),
        _ => return no_overload(),
    })
}

fn quantity_method<'a>(quantity: Quantity, name: &str, args: &[Value<'a>]) -> Result<Value<'a>> {
    let other = match args {
        [Value::Quantity(other)] => Some(*other),
        [Value::Int(number)] => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    };
    Ok(match (name, other, args) {
        ("isInteger", None, []) => Value::Bool(quantity.is_whole()),
        ("asInteger", None, []) if quantity.is_whole() => Value::Int(quantity.whole()),
        ("asInteger", None, []) => return told("cannot convert value to integer"),
        ("asApproximateFloat", None, []) => Value::Double(quantity.nano() as f64 / 1e9),
        ("sign", None, []) => Value::Int(quantity.nano().signum() as i64),
        ("add", Some(other), _) => Value::Quantity(quantity.plus(other)),
        ("sub", Some(other), _) => Value::Quantity(quantity.minus(other)),
        ("isLessThan", Some(other), _) => Value::Bool(quantity.nano() < other.nano()),
        ("isGreaterThan", Some(other), _) => Value::Bool(quantity.nano() > other.nano()),
        ("compareTo", Some(other), _) => Value::Int(quantity.nano().cmp(&other.nano()) as i64),
        _ => return no_overload(),
    })
}

fn time_method<'a>(time: Timestamp, name: &str) -> Result<Value<'a>> {
    let time = time.to_zoned(jiff::tz::TimeZone::UTC);
    Ok(Value::Int(match name {
        "getFullYear" => i64::from(time.year()),
        "getMonth" => i64::from(time.month()) - 1,
        "getDate" => i64::from(time.day()),
        "getDayOfMonth" => i64::from(time.day()) - 1,
        "getDayOfYear" => i64::from(time.day_of_year()) - 1,
        "getDayOfWeek" => i64::from(time.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(time.hour()),
        "getMinutes" => i64::from(time.minute()),
        "getSeconds" => i64::from(time.second()),
        "getMilliseconds" => i64::from(time.millisecond()),
        _ => return no_overload(),
    }))
}

/// What went wrong, in words.
pub(super) fn words(failure: &Failure) -> &str {
    match failure {
        Failure::Told(why) => why,
        Failure::RuleCost => "operation cancelled: actual cost limit exceeded",
        Failure::TotalCost => "validation failed due to running out of cost budget",
    }
}
