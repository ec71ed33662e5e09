//! Expressions as trees.

use std::sync::Arc;

use super::lex::{Placed, Token, scan};
use crate::custom::Pattern;

/// Brackets and operators inside one another; what recursion bears.
const DEPTH_MAX: usize = 100;
/// As upstream: characters of a rule.
const LENGTH_MAX: usize = 100_000;

#[derive(Debug)]
pub(super) enum Expr {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    Ident(String),
    Select {
        on: Box<Expr>,
        field: String,
        optional: bool,
    },
    Has {
        on: Box<Expr>,
        field: String,
    },
    Index {
        on: Box<Expr>,
        at: Box<Expr>,
        optional: bool,
    },
    Call {
        on: Option<Box<Expr>>,
        name: String,
        args: Vec<Expr>,
    },
    /// `matches` with a pattern that is known.
    Matches {
        on: Box<Expr>,
        pattern: Arc<Pattern>,
    },
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    If(Box<[Expr; 3]>),
    Binary(&'static str, Box<Expr>, Box<Expr>),
    /// `list.all(x, body)` and its like: one variable or two, one body or two.
    Loop {
        kind: Loop,
        on: Box<Expr>,
        names: Vec<String>,
        bodies: Vec<Expr>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loop {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    OptMap,
    OptFlatMap,
}

/// Reads an expression.
///
/// # Errors
/// What is wrong with it, with its place, as upstream's compiler words it.
pub(super) fn parse(text: &str) -> Result<Expr, String> {
    let told = |(why, at): (String, usize)| {
        let before: String = text.chars().take(at).collect();
        let line = before.matches('\n').count() + 1;
        let column = at - before.rfind('\n').map_or(0, |end| before[..=end].chars().count()) + 1;
        format!("compilation failed: ERROR: <input>:{line}:{column}: Syntax error: {why}")
    };
    if text.len() > LENGTH_MAX {
        return Err(format!("compilation failed: rule has more than {LENGTH_MAX} characters"));
    }
    let tokens = scan(text).map_err(told)?;
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let expression = parser.expression().and_then(|expression| {
        parser.expect_end()?;
        Ok(expression)
    });
    expression.map_err(told)
}

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
}

type Parsed<T> = Result<T, (String, usize)>;

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn place(&self) -> usize {
        self.tokens[self.at].1
    }

    fn take(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        // The last token is the end, which is never passed.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn takes(&mut self, sign: &str) -> bool {
        let is_here = matches!(self.peek(), Token::Sign(found) if *found == sign);
        if is_here {
            self.take();
        }
        is_here
    }

    fn unexpected<T>(&self, expecting: &str) -> Parsed<T> {
        let found = match self.peek() {
            Token::End => "<EOF>".to_owned(),
            Token::Sign(sign) => (*sign).to_owned(),
            Token::Ident(name) => name.clone(),
            other => format!("{other:?}"),
        };
        Err((format!("mismatched input '{found}' expecting {expecting}"), self.place()))
    }

    fn expect(&mut self, sign: &str) -> Parsed<()> {
        if self.takes(sign) { Ok(()) } else { self.unexpected(&format!("'{sign}'")) }
    }

    fn expect_end(&self) -> Parsed<()> {
        if *self.peek() == Token::End { Ok(()) } else { self.unexpected("<EOF>") }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH_MAX {
            return Err((format!("expression recursion limit exceeded: {DEPTH_MAX}"), self.place()));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn expression(&mut self) -> Parsed<Expr> {
        self.deeper(|parser| {
            let condition = parser.any()?;
            if !parser.takes("?") {
                return Ok(condition);
            }
            let yes = parser.any()?;
            parser.expect(":")?;
            let no = parser.expression()?;
            Ok(Expr::If(Box::new([condition, yes, no])))
        })
    }

    fn any(&mut self) -> Parsed<Expr> {
        let mut terms = vec![self.all()?];
        while self.takes("||") {
            terms.push(self.all()?);
        }
        Ok(balanced(terms, Expr::Or))
    }

    fn all(&mut self) -> Parsed<Expr> {
        let mut terms = vec![self.relation()?];
        while self.takes("&&") {
            terms.push(self.relation()?);
        }
        Ok(balanced(terms, Expr::And))
    }

    fn relation(&mut self) -> Parsed<Expr> {
        let mut left = self.sum()?;
        loop {
            let operator = match self.peek() {
                Token::Sign(sign) => ["==", "!=", "<=", ">=", "<", ">"].into_iter().find(|known| known == sign),
                Token::Ident(name) if name == "in" => Some("in"),
                _ => None,
            };
            let Some(operator) = operator else { return Ok(left) };
            self.take();
            left = Expr::Binary(operator, Box::new(left), Box::new(self.sum()?));
        }
    }

    fn sum(&mut self) -> Parsed<Expr> {
        self.chain(&["+", "-"], Self::product)
    }

    fn product(&mut self) -> Parsed<Expr> {
        self.chain(&["*", "/", "%"], Self::unary)
    }

    /// Operators that group to the left. Their number is bounded as depth is: evaluation recurses into each.
    fn chain(&mut self, signs: &[&'static str], operand: fn(&mut Self) -> Parsed<Expr>) -> Parsed<Expr> {
        let mut left = operand(self)?;
        let mut count = 0;
        while let Some(sign) = signs.iter().find(|sign| self.takes(sign)) {
            count += 1;
            if count > DEPTH_MAX {
                return Err((format!("expression recursion limit exceeded: {DEPTH_MAX}"), self.place()));
            }
            left = Expr::Binary(sign, Box::new(left), Box::new(operand(self)?));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        if self.takes("!") {
            return self.deeper(|parser| Ok(Expr::Not(Box::new(parser.unary()?))));
        }
        if self.takes("-") {
            return self.deeper(|parser| Ok(Expr::Negative(Box::new(parser.unary()?))));
        }
        self.member()
    }

    fn member(&mut self) -> Parsed<Expr> {
        let mut value = self.primary()?;
        let mut count = 0;
        loop {
            count += 1;
            if count > DEPTH_MAX {
                return Err((format!("expression recursion limit exceeded: {DEPTH_MAX}"), self.place()));
            }
            if self.takes(".") {
                let optional = self.takes("?");
                let place = self.place();
                let Token::Ident(field) = self.take() else { return Err(("expecting an identifier".into(), place)) };
                value = if !optional && self.takes("(") {
                    let args = self.list(")")?;
                    call(Some(value), field, args, place)?
                } else {
                    Expr::Select { on: Box::new(value), field, optional }
                };
            } else if self.takes("[") {
                let optional = self.takes("?");
                let at = Box::new(self.expression()?);
                self.expect("]")?;
                value = Expr::Index { on: Box::new(value), at, optional };
            } else {
                return Ok(value);
            }
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let place = self.place();
        if self.takes("(") {
            let value = self.expression()?;
            self.expect(")")?;
            return Ok(value);
        }
        if self.takes("[") {
            return Ok(Expr::List(self.list("]")?));
        }
        if self.takes("{") {
            return self.map();
        }
        self.takes(".");
        match self.peek() {
            Token::End | Token::Sign(_) => return self.unexpected("an expression"),
            _ => {}
        }
        Ok(match self.take() {
            Token::Int(number) => Expr::Int(number),
            Token::Uint(number) => Expr::Uint(number),
            Token::Double(number) => Expr::Double(number),
            Token::String(text) => Expr::String(text.into()),
            Token::Bytes(bytes) => Expr::Bytes(bytes.into()),
            Token::Ident(name) => match name.as_str() {
                "null" => Expr::Null,
                "true" => Expr::Bool(true),
                "false" => Expr::Bool(false),
                _ if self.takes("(") => {
                    let args = self.list(")")?;
                    call(None, name, args, place)?
                }
                _ => Expr::Ident(name),
            },
            Token::End | Token::Sign(_) => return Err(("expecting an expression".into(), place)),
        })
    }

    fn list(&mut self, end: &str) -> Parsed<Vec<Expr>> {
        let mut items = Vec::new();
        while !self.takes(end) {
            items.push(self.expression()?);
            if !self.takes(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(items)
    }

    fn map(&mut self) -> Parsed<Expr> {
        let mut entries = Vec::new();
        while !self.takes("}") {
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
            if !self.takes(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr::Map(entries))
    }
}

/// Many operands of one operator as a flat tree.
fn balanced(mut terms: Vec<Expr>, join: fn(Box<Expr>, Box<Expr>) -> Expr) -> Expr {
    while terms.len() > 1 {
        let mut joined = Vec::with_capacity(terms.len().div_ceil(2));
        let mut rest = terms.into_iter();
        while let Some(left) = rest.next() {
            joined.push(match rest.next() {
                Some(right) => join(Box::new(left), Box::new(right)),
                None => left,
            });
        }
        terms = joined;
    }
    // There was one at least.
    terms.pop().unwrap_or(Expr::Null)
}

/// A call, or one of the macros that look like calls.
fn call(on: Option<Expr>, name: String, mut args: Vec<Expr>, place: usize) -> Parsed<Expr> {
    let kind = match (name.as_str(), args.len()) {
        ("all", 2 | 3) => Some(Loop::All),
        ("exists", 2 | 3) => Some(Loop::Exists),
        ("exists_one" | "existsOne", 2 | 3) => Some(Loop::ExistsOne),
        ("map", 2 | 3) => Some(Loop::Map),
        ("filter", 2) => Some(Loop::Filter),
        ("optMap", 2) => Some(Loop::OptMap),
        ("optFlatMap", 2) => Some(Loop::OptFlatMap),
        _ => None,
    };
    match (on, kind) {
        (None, None) if name == "has" => match args.pop() {
            Some(Expr::Select { on, field, .. }) if args.is_empty() => Ok(Expr::Has { on, field }),
            _ => Err(("invalid argument to has() macro".into(), place)),
        },
        (Some(on), Some(kind)) => {
            // Of three arguments the second is another variable, but for `map(x, condition, body)`.
            let variables = if args.len() == 3 && kind != Loop::Map { 2 } else { 1 };
            let bodies = args.split_off(variables);
            let names = args.into_iter().map(|argument| match argument {
                Expr::Ident(name) => Ok(name),
                _ => Err(("argument must be a simple name".to_owned(), place)),
            });
            Ok(Expr::Loop { kind, on: Box::new(on), names: names.collect::<Parsed<_>>()?, bodies })
        }
        (Some(on), None) if name == "matches" && matches!(args.as_slice(), [Expr::String(_)]) => {
            let Some(Expr::String(text)) = args.pop() else { return Err(("no pattern".into(), place)) };
            let pattern = Pattern::new(&text);
            match pattern.compiled() {
                Err(why) => Err((format!("invalid matches argument: error parsing regexp: {why}"), place)),
                Ok(_) => Ok(Expr::Matches { on: Box::new(on), pattern: Arc::new(pattern) }),
            }
        }
        (on, _) => Ok(Expr::Call { on: on.map(Box::new), name, args }),
    }
}
