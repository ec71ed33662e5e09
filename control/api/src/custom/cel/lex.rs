//! Words of an expression.

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
    Ident(String),
    /// Operators and brackets.
    Sign(&'static str),
    End,
}

/// A word and where it begins, in characters.
pub(super) type Placed = (Token, usize);

/// The longest come first.
const SIGNS: [&str; 27] = [
    "&&", "||", "==", "!=", "<=", ">=", "?", ":", "(", ")", "[", "]", "{", "}", ".", ",", "<", ">", "+", "-", "*", "/",
    "%", "!", "=", "&", "|",
];

pub(super) fn scan(text: &str) -> Result<Vec<Placed>, (String, usize)> {
    let chars: Vec<char> = text.chars().collect();
    let mut scanner = Scanner { chars: &chars, at: 0 };
    let mut tokens = Vec::new();
    loop {
        scanner.skip_blank();
        let start = scanner.at;
        let token = scanner.token().map_err(|why| (why, start))?;
        let is_end = token == Token::End;
        tokens.push((token, start));
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Scanner<'a> {
    chars: &'a [char],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn skip_blank(&mut self) {
        loop {
            while self.peek(0).is_whitespace() {
                self.at += 1;
            }
            if self.peek(0) != '/' || self.peek(1) != '/' {
                return;
            }
            while self.at < self.chars.len() && self.peek(0) != '\n' {
                self.at += 1;
            }
        }
    }

    fn token(&mut self) -> Result<Token, String> {
        if self.at >= self.chars.len() {
            return Ok(Token::End);
        }
        let prefix_end = (0..2).find(|ahead| !matches!(self.peek(*ahead), 'r' | 'R' | 'b' | 'B')).unwrap_or(2);
        if matches!(self.peek(prefix_end), '"' | '\'') {
            return self.string(prefix_end);
        }
        let first = self.peek(0);
        if first.is_ascii_digit() || (first == '.' && self.peek(1).is_ascii_digit()) {
            return self.number();
        }
        if first == '_' || first.is_ascii_alphabetic() {
            let start = self.at;
            while self.peek(0) == '_' || self.peek(0).is_ascii_alphanumeric() {
                self.at += 1;
            }
            return Ok(Token::Ident(self.chars[start..self.at].iter().collect()));
        }
        let is_here = |sign: &&&str| sign.chars().enumerate().all(|(ahead, c)| self.peek(ahead) == c);
        let sign = SIGNS.iter().find(is_here).ok_or_else(|| format!("token recognition error at: '{first}'"))?;
        self.at += sign.len();
        Ok(Token::Sign(sign))
    }

    fn number(&mut self) -> Result<Token, String> {
        let start = self.at;
        if self.peek(0) == '0' && matches!(self.peek(1), 'x' | 'X') {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() {
                self.at += 1;
            }
            let digits: String = self.chars[start + 2..self.at].iter().collect();
            let number = u64::from_str_radix(&digits, 16).map_err(|_| "invalid int literal".to_owned())?;
            return self.whole(number);
        }
        let mut is_double = false;
        loop {
            match self.peek(0) {
                c if c.is_ascii_digit() => {}
                '.' if self.peek(1).is_ascii_digit() => is_double = true,
                'e' | 'E' if self.peek(1).is_ascii_digit() || matches!(self.peek(1), '+' | '-') => {
                    is_double = true;
                    self.at += 1;
                }
                _ => break,
            }
            self.at += 1;
        }
        let text: String = self.chars[start..self.at].iter().collect();
        if is_double {
            return text.parse().map(Token::Double).map_err(|_| "invalid double literal".to_owned());
        }
        let number = text.parse().map_err(|_| "invalid int literal".to_owned())?;
        self.whole(number)
    }

    fn whole(&mut self, number: u64) -> Result<Token, String> {
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return Ok(Token::Uint(number));
        }
        i64::try_from(number).map(Token::Int).map_err(|_| "invalid int literal".to_owned())
    }

    fn string(&mut self, prefix: usize) -> Result<Token, String> {
        let prefix: String = (0..prefix).map(|ahead| self.peek(ahead).to_ascii_lowercase()).collect();
        let (is_raw, is_bytes) = (prefix.contains('r'), prefix.contains('b'));
        self.at += prefix.len();
        let quote = self.peek(0);
        let count = if self.peek(1) == quote && self.peek(2) == quote { 3 } else { 1 };
        self.at += count;
        let (mut text, mut bytes) = (String::new(), Vec::new());
        loop {
            if self.at >= self.chars.len() || (count == 1 && self.peek(0) == '\n') {
                return Err("unterminated string literal".into());
            }
            if (0..count).all(|ahead| self.peek(ahead) == quote) {
                self.at += count;
                break;
            }
            let c = self.peek(0);
            self.at += 1;
            if c != '\\' || is_raw {
                text.push(c);
            } else {
                let escaped = self.escape()?;
                match (is_bytes, u8::try_from(u32::from(escaped))) {
                    (true, Ok(byte)) => {
                        bytes.extend(std::mem::take(&mut text).into_bytes());
                        bytes.push(byte);
                    }
                    _ => text.push(escaped),
                }
            }
        }
        bytes.extend(text.as_bytes());
        Ok(if is_bytes { Token::Bytes(bytes) } else { Token::String(text) })
    }

    fn escape(&mut self) -> Result<char, String> {
        let c = self.peek(0);
        self.at += 1;
        Ok(match c {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '?' | '"' | '\'' | '`' => c,
            'x' | 'X' => self.code(2, 16)?,
            'u' => self.code(4, 16)?,
            'U' => self.code(8, 16)?,
            '0'..='3' => {
                self.at -= 1;
                self.code(3, 8)?
            }
            _ => return Err(format!("unknown escape sequence: \\{c}")),
        })
    }

    fn code(&mut self, digits: usize, radix: u32) -> Result<char, String> {
        let text: String = (0..digits).map(|ahead| self.peek(ahead)).collect();
        self.at += digits;
        let code = u32::from_str_radix(&text, radix).ok().and_then(char::from_u32);
        code.ok_or_else(|| format!("invalid code in an escape sequence: {text}"))
    }
}
