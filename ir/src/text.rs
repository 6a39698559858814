//! What the text forms of all levels share: the lexer, typed reads from it, and the writing of strings and floats.
//!
//! A level's parser drives a [`Cursor`], which holds one token of lookahead. Tokens are words (`matmul`, `v0`), unsigned
//! numbers (`12`, `0.5`, `1e-7`), hashes (`#5f3c`), quoted strings and punctuation; `//` starts a comment. A minus sign
//! is punctuation, so `i-1` reads as three tokens; [`Cursor::i64`] and [`Cursor::float`] accept it before a number.
//! Nothing here recurses, and nothing panics on any text.

pub mod constant;

use std::fmt;

use cranelift_entity::EntityRef;

/// Why a text is not accepted, and where. Lines and columns count from 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ParseError {
    /// Line of the guilty token.
    pub line: usize,
    /// Column of its first character.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A letter or underscore, then letters, digits and underscores.
    Word(&'a str),
    /// Digits, with fraction and exponent if there are any; not yet converted.
    Number(&'a str),
    /// The letters and digits after a `#`.
    Hash(&'a str),
    /// A quoted string, without its quotes and escapes.
    Str(String),
    /// One of the characters or pairs of characters in [`PUNCTUATION`].
    Punct(&'static str),
    /// The end of the text.
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(s) | Token::Number(s) => write!(f, "`{s}`"),
            Token::Hash(s) => write!(f, "`#{s}`"),
            Token::Str(s) => write!(f, "the string {}", Quoted(s)),
            Token::Punct(s) => write!(f, "`{s}`"),
            Token::End => f.write_str("the end"),
        }
    }
}

/// Every punctuation token, longer ones first.
pub const PUNCTUATION: [&str; 30] = [
    "->", "..", "<=", ">=", "==", "!=", "{", "}", "[", "]", "(", ")", "<", ">", "=", ",", ":", ";", "+", "-", "*", "/",
    "%", "&", "|", "!", "?", "@", "^", ".",
];

/// A text being read: the token at hand and what follows.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    text: &'a str,
    token: Token<'a>,
    /// Byte offset of `token`.
    start: usize,
    /// Byte offset after `token`.
    end: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the first token.
    ///
    /// # Errors
    /// When the text does not begin with a token.
    pub fn new(text: &'a str) -> Result<Self, ParseError> {
        let mut cursor = Self { text, token: Token::End, start: 0, end: 0 };
        cursor.advance()?;
        Ok(cursor)
    }

    /// The token at hand.
    pub fn peek(&self) -> &Token<'a> {
        &self.token
    }

    /// Byte offset of the token at hand, for [`Cursor::error_at`].
    pub fn offset(&self) -> usize {
        self.start
    }

    /// An error at the token at hand.
    pub fn error(&self, message: impl Into<String>) -> ParseError {
        self.error_at(self.start, message)
    }

    /// An error at a byte offset that [`Cursor::offset`] gave.
    pub fn error_at(&self, offset: usize, message: impl Into<String>) -> ParseError {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        ParseError {
            line: before.bytes().filter(|&b| b == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
        }
    }

    /// Takes the token at hand and reads the next.
    ///
    /// # Errors
    /// When no token follows.
    pub fn take(&mut self) -> Result<Token<'a>, ParseError> {
        let token = self.token.clone();
        self.advance()?;
        Ok(token)
    }

    /// Takes a punctuation or a word if it is at hand, and says whether it was.
    ///
    /// # Errors
    /// When no token follows.
    pub fn eat(&mut self, what: &str) -> Result<bool, ParseError> {
        let found = self.at(what);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    /// Whether a punctuation or a word is at hand.
    pub fn at(&self, what: &str) -> bool {
        match &self.token {
            Token::Word(s) => *s == what,
            Token::Punct(s) => *s == what,
            Token::Number(_) | Token::Hash(_) | Token::Str(_) | Token::End => false,
        }
    }

    /// Takes a punctuation or a word that must be at hand.
    ///
    /// # Errors
    /// When it is not.
    pub fn expect(&mut self, what: &str) -> Result<(), ParseError> {
        if self.eat(what)? { Ok(()) } else { Err(self.expected(&format!("`{what}`"))) }
    }

    /// An error that says what should be at hand.
    pub fn expected(&self, what: &str) -> ParseError {
        self.error(format!("expected {what}, found {}", self.token))
    }

    /// Takes a word.
    ///
    /// # Errors
    /// When another token is at hand.
    pub fn word(&mut self) -> Result<&'a str, ParseError> {
        let Token::Word(word) = self.token else { return Err(self.expected("a word")) };
        self.advance()?;
        Ok(word)
    }

    /// Takes a quoted string.
    ///
    /// # Errors
    /// When another token is at hand.
    pub fn string(&mut self) -> Result<String, ParseError> {
        let Token::Str(text) = &mut self.token else { return Err(self.expected("a quoted string")) };
        let text = std::mem::take(text);
        self.advance()?;
        Ok(text)
    }

    /// Takes a name: a word or a quoted string.
    ///
    /// # Errors
    /// When another token is at hand.
    pub fn name(&mut self) -> Result<String, ParseError> {
        match self.peek() {
            Token::Word(word) => {
                let word = (*word).to_owned();
                self.take()?;
                Ok(word)
            }
            Token::Str(_) => self.string(),
            Token::Number(_) | Token::Hash(_) | Token::Punct(_) | Token::End => Err(self.expected("a name")),
        }
    }

    /// Takes an unsigned integer.
    ///
    /// # Errors
    /// When another token is at hand, or the number does not fit.
    pub fn u64(&mut self) -> Result<u64, ParseError> {
        let Token::Number(number) = self.token else { return Err(self.expected("an unsigned integer")) };
        let value = number.parse().map_err(|_| self.error(format!("{number} is not an integer of 64 bits")))?;
        self.advance()?;
        Ok(value)
    }

    /// Takes an unsigned integer that fits a `usize`.
    ///
    /// # Errors
    /// When another token is at hand, or the number does not fit.
    pub fn usize(&mut self) -> Result<usize, ParseError> {
        let start = self.start;
        let value = self.u64()?;
        usize::try_from(value).map_err(|_| self.error_at(start, format!("{value} is too large")))
    }

    /// Takes an integer with a sign if there is one; wide enough for every integer type.
    ///
    /// # Errors
    /// When another token is at hand, or the number does not fit.
    pub fn i128(&mut self) -> Result<i128, ParseError> {
        let negative = self.eat("-")?;
        let value = i128::from(self.u64()?);
        Ok(if negative { -value } else { value })
    }

    /// Takes a 64-bit integer with a sign if there is one.
    ///
    /// # Errors
    /// When another token is at hand, or the number does not fit.
    pub fn i64(&mut self) -> Result<i64, ParseError> {
        let start = self.start;
        let value = self.i128()?;
        i64::try_from(value).map_err(|_| self.error_at(start, format!("{value} is not an integer of 64 bits")))
    }

    /// Takes a float as [`Float`] prints it, rounded once to the type `T`.
    ///
    /// # Errors
    /// When another token is at hand.
    pub fn float<T: TextFloat>(&mut self) -> Result<T, ParseError> {
        let negative = self.eat("-")?;
        let value = match self.token {
            Token::Number(number) => {
                T::parse(number).ok_or_else(|| self.error(format!("{number} is not a floating-point number")))?
            }
            Token::Word("inf") => T::INFINITY,
            Token::Word("nan") => {
                self.advance()?;
                let Token::Hash(bits) = self.token else { return Err(self.expected("the bits of the NaN")) };
                let nan = u64::from_str_radix(bits, 16).ok().and_then(T::nan_of_bits);
                let nan = nan.ok_or_else(|| self.error(format!("{bits} is not the bits of a NaN")))?;
                self.advance()?;
                return Ok(nan);
            }
            Token::Word(_) | Token::Hash(_) | Token::Str(_) | Token::Punct(_) | Token::End => {
                return Err(self.expected("a number"));
            }
        };
        self.advance()?;
        Ok(if negative { value.negate() } else { value })
    }

    /// Takes a handle: a prefix and a number in one word, `v12`.
    ///
    /// # Errors
    /// When another token is at hand.
    pub fn handle(&mut self, prefix: &str) -> Result<u32, ParseError> {
        let Token::Word(word) = self.token else { return Err(self.expected(&format!("a handle `{prefix}0`"))) };
        // A second spelling of a number (`v01`) would be a second name of one entity.
        let digits = word.strip_prefix(prefix).filter(|d| d.len() == 1 || !d.starts_with('0'));
        let number = digits.and_then(|d| d.parse::<u32>().ok()).filter(|&n| n < u32::MAX);
        let number = number.ok_or_else(|| self.expected(&format!("a handle `{prefix}0`")))?;
        self.advance()?;
        Ok(number)
    }

    /// Takes a handle as an entity, without asking whether that entity exists.
    ///
    /// # Errors
    /// When another token is at hand.
    pub fn entity<E: EntityRef>(&mut self, prefix: &str) -> Result<E, ParseError> {
        self.handle(prefix).map(|n| E::new(n as usize))
    }

    /// Takes items between `open` and `close`, separated by commas.
    ///
    /// # Errors
    /// When an item is refused, or punctuation is missing.
    pub fn list<T>(
        &mut self,
        open: &str,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Result<T, ParseError>,
    ) -> Result<Vec<T>, ParseError> {
        self.expect(open)?;
        let mut items = Vec::new();
        if self.eat(close)? {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat(close)? {
                return Ok(items);
            }
            if !self.eat(",")? {
                return Err(self.expected(&format!("`,` or `{close}`")));
            }
        }
    }

    /// Reads the next token into place.
    fn advance(&mut self) -> Result<(), ParseError> {
        loop {
            let rest = &self.text[self.end..];
            let trimmed = rest.trim_start();
            self.end += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                break;
            }
            self.end += trimmed.find('\n').unwrap_or(trimmed.len());
        }
        self.start = self.end;
        let rest = &self.text[self.start..];
        let Some(first) = rest.chars().next() else {
            self.token = Token::End;
            return Ok(());
        };
        if first == '"' {
            return self.advance_string(rest);
        }
        let word_length = |s: &str| s.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        let (token, length) = if first.is_ascii_alphabetic() || first == '_' {
            let length = word_length(rest);
            (Token::Word(&rest[..length]), length)
        } else if first.is_ascii_digit() {
            let length = number_length(rest);
            (Token::Number(&rest[..length]), length)
        } else if first == '#' {
            let length = 1 + word_length(&rest[1..]);
            (Token::Hash(&rest[1..length]), length)
        } else if let Some(punct) = PUNCTUATION.into_iter().find(|p| rest.starts_with(p)) {
            (Token::Punct(punct), punct.len())
        } else {
            return Err(self.error(format!("unexpected character {first:?}")));
        };
        self.token = token;
        self.end += length;
        Ok(())
    }

    /// Reads the string at the start of `rest`, which begins with a quote.
    fn advance_string(&mut self, rest: &'a str) -> Result<(), ParseError> {
        let mut text = String::new();
        let mut chars = rest.char_indices().skip(1);
        let unclosed = || self.error("the string is not closed on its line");
        loop {
            let (offset, c) = chars.next().ok_or_else(unclosed)?;
            match c {
                '"' => {
                    self.end += offset + 1;
                    self.token = Token::Str(text);
                    return Ok(());
                }
                '\n' => return Err(unclosed()),
                '\\' => {
                    let bad = || self.error_at(self.start + offset, "unknown escape");
                    match chars.next().ok_or_else(unclosed)?.1 {
                        'n' => text.push('\n'),
                        'r' => text.push('\r'),
                        't' => text.push('\t'),
                        c @ ('"' | '\\') => text.push(c),
                        'u' => {
                            // `{`, one to six hexadecimal digits, `}`.
                            let body = chars.next().filter(|(_, c)| *c == '{').ok_or_else(bad)?.0 + 1;
                            let mut digits = 0;
                            while chars.next().ok_or_else(unclosed)?.1.is_ascii_hexdigit() {
                                digits += 1;
                            }
                            let end = rest[body + digits..].starts_with('}');
                            let code = u32::from_str_radix(&rest[body..body + digits], 16).ok().filter(|_| end);
                            text.push(code.and_then(char::from_u32).ok_or_else(bad)?);
                        }
                        _ => return Err(bad()),
                    }
                }
                c => text.push(c),
            }
        }
    }
}

/// Length of the number that a text starts with: digits, a fraction, an exponent with its sign.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| from + bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let after = end + 1 + sign;
        if bytes.get(after).is_some_and(u8::is_ascii_digit) {
            end = digits(after);
        }
    }
    end
}

/// Writes a name: as a word if it is one, else as a quoted string.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a>(pub &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        let word = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
        if word { f.write_str(self.0) } else { write!(f, "{}", Quoted(self.0)) }
    }
}

/// Writes a string with quotes and escapes, on one line.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_control() => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// Writes a float so that [`Cursor::float`] reads the same bits: the shortest decimal that rounds to it, `inf`, or
/// `nan #` with its bits.
#[derive(Clone, Copy, Debug)]
pub struct Float<T>(pub T);

impl<T: TextFloat> fmt::Display for Float<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.nan_bits() {
            Some(bits) => write!(f, "nan #{bits:x}"),
            // `inf` and `-inf` are how `Debug` writes infinities.
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// The floating-point types that text forms can hold.
pub trait TextFloat: fmt::Debug + Copy {
    /// Positive infinity.
    const INFINITY: Self;
    /// The nearest value to a decimal number.
    fn parse(number: &str) -> Option<Self>;
    /// The value with the other sign.
    fn negate(self) -> Self;
    /// The bits, if the value is a NaN.
    fn nan_bits(self) -> Option<u64>;
    /// The NaN of these bits, if they are one's.
    fn nan_of_bits(bits: u64) -> Option<Self>;
}

macro_rules! text_float {
    ($ty:ty, $bits:ty) => {
        impl TextFloat for $ty {
            const INFINITY: Self = <$ty>::INFINITY;
            fn parse(number: &str) -> Option<Self> {
                number.parse().ok()
            }
            fn negate(self) -> Self {
                -self
            }
            fn nan_bits(self) -> Option<u64> {
                self.is_nan().then(|| u64::from(self.to_bits()))
            }
            fn nan_of_bits(bits: u64) -> Option<Self> {
                <$bits>::try_from(bits).ok().map(Self::from_bits).filter(|v| v.is_nan())
            }
        }
    };
}
text_float!(f32, u32);
text_float!(f64, u64);

macro_rules! text_half {
    ($ty:ty) => {
        /// Decimals go through `f32`, which holds every value of the type, so that printed values read back exactly.
        impl TextFloat for $ty {
            const INFINITY: Self = <$ty>::INFINITY;
            fn parse(number: &str) -> Option<Self> {
                number.parse().ok().map(Self::from_f32)
            }
            fn negate(self) -> Self {
                -self
            }
            fn nan_bits(self) -> Option<u64> {
                self.is_nan().then(|| u64::from(self.to_bits()))
            }
            fn nan_of_bits(bits: u64) -> Option<Self> {
                u16::try_from(bits).ok().map(Self::from_bits).filter(|v| v.is_nan())
            }
        }
    };
}
text_half!(half::f16);
text_half!(half::bf16);

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        let mut cursor = Cursor::new(text).unwrap();
        let mut tokens = Vec::new();
        while *cursor.peek() != Token::End {
            tokens.push(cursor.take().unwrap());
        }
        tokens
    }

    #[test]
    fn splits_text() {
        use Token::{Hash, Number, Punct, Str, Word};
        assert_eq!(
            tokens("v0 -> [1..2, 1.5e-3] // gone\n #5f \"a\\\"\\u{e9}\" i-1"),
            vec![
                Word("v0"),
                Punct("->"),
                Punct("["),
                Number("1"),
                Punct(".."),
                Number("2"),
                Punct(","),
                Number("1.5e-3"),
                Punct("]"),
                Hash("5f"),
                Str("a\"é".into()),
                Word("i"),
                Punct("-"),
                Number("1"),
            ]
        );
        assert!(tokens("").is_empty());
        assert!(tokens("// only").is_empty());
    }

    #[test]
    fn errors_say_where() {
        let mut cursor = Cursor::new("é").unwrap_err();
        assert_eq!((cursor.line, cursor.column), (1, 1));
        cursor = tokens_error("a\n  \"é\" $");
        assert_eq!((cursor.line, cursor.column), (2, 7));
        for bad in ["\"", "\"\\", "\"\\u", "\"\\u{", "\"\\u{110000}\"", "\"\\u{+1}é\"", "\"\n\"", "\"\\q\""] {
            tokens_error(bad);
        }
    }

    fn tokens_error(text: &str) -> ParseError {
        let mut cursor = match Cursor::new(text) {
            Ok(cursor) => cursor,
            Err(error) => return error,
        };
        loop {
            match cursor.take() {
                Ok(Token::End) => panic!("{text:?} has no error"),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }

    #[test]
    fn strings_survive() {
        for s in ["", "plain", "a\"b\\c\n\r\t\u{0}\u{7f}\u{85}é😀", "}\\u{1}"] {
            let text = Quoted(s).to_string();
            assert!(!text.contains('\n'));
            assert_eq!(Cursor::new(&text).unwrap().string().unwrap(), s);
        }
    }

    #[test]
    fn floats_survive() {
        for bits in [0, 1, 1 << 31, 0x3f80_0000, 0x7f7f_ffff, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0xffff_ffff] {
            let value = f32::from_bits(bits);
            let text = Float(value).to_string();
            assert_eq!(Cursor::new(&text).unwrap().float::<f32>().unwrap().to_bits(), bits, "{text}");
        }
        for value in [1e300, -2.5e-310, f64::MIN_POSITIVE, 0.1] {
            let text = Float(value).to_string();
            assert_eq!(Cursor::new(&text).unwrap().float::<f64>().unwrap().to_bits(), value.to_bits(), "{text}");
        }
        for bits in 0..=u16::MAX {
            let text = Float(half::f16::from_bits(bits)).to_string();
            assert_eq!(Cursor::new(&text).unwrap().float::<half::f16>().unwrap().to_bits(), bits, "{text}");
            let text = Float(half::bf16::from_bits(bits)).to_string();
            assert_eq!(Cursor::new(&text).unwrap().float::<half::bf16>().unwrap().to_bits(), bits, "{text}");
        }
        assert!(Cursor::new("nan #3f800000").unwrap().float::<f32>().is_err());
        assert!(Cursor::new("nan").unwrap().float::<f32>().is_err());
    }

    #[test]
    fn integers_are_checked() {
        assert_eq!(Cursor::new("-9223372036854775808").unwrap().i64(), Ok(i64::MIN));
        assert!(Cursor::new("9223372036854775808").unwrap().i64().is_err());
        assert!(Cursor::new("18446744073709551616").unwrap().u64().is_err());
        assert!(Cursor::new("1.5").unwrap().u64().is_err());
        assert_eq!(Cursor::new("v12").unwrap().handle("v"), Ok(12));
        for bad in ["v", "v01", "v+1", "v4294967295", "n1", "v99999999999"] {
            assert!(Cursor::new(bad).unwrap().handle("v").is_err(), "{bad}");
        }
    }

    #[test]
    fn lists() {
        let read = |text| Cursor::new(text).unwrap().list("[", "]", Cursor::u64);
        assert_eq!(read("[]"), Ok(vec![]));
        assert_eq!(read("[1, 2]"), Ok(vec![1, 2]));
        for bad in ["[1 2]", "[1,", "[,]", "[1,]", "1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
