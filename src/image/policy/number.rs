//! Pure: the numbers that Go's `strconv.ParseFloat` reads, compared exactly.
//!
//! Flux reads numerical keys as 64-bit floats: decimals with fraction and exponent, hexadecimal
//! floats (`0x1p4`), `inf`, and `_` between digits. The same texts are numbers here, and the same
//! ones are not: what overflows a float is none. The value kept is the decimal itself, because a
//! float holds 15 digits for sure and a time stamp to the millisecond has 17. Rounding to a float
//! never turns two numbers round, so the exact order is Flux's order wherever Flux sees one.
//!
//! `nan` is the one text that is refused though Go reads it: it is neither above nor below
//! anything, so that Flux's choice would be whatever comes next in its list.

use std::cmp::Ordering;

/// A number as its sign and its digits without leading or trailing zeros: `0.DIGITS × 10^POINT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Number {
    negative: bool,
    infinite: bool,
    digits: Vec<u8>,
    point: i64,
}

impl Number {
    /// Reads a key; `None` where Go's reader would fail.
    pub(super) fn parse(key: &str) -> Option<Self> {
        let (negative, unsigned) = match key.as_bytes().first()? {
            b'-' => (true, &key[1..]),
            b'+' => (false, &key[1..]),
            _ => (false, key),
        };
        if ["inf", "infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
            return Some(Number { negative, infinite: true, digits: Vec::new(), point: 0 });
        }
        let plain = without_underscores(unsigned)?;
        if let Some(hexadecimal) = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
            let value = hexadecimal_float(hexadecimal)?;
            // 1074 places after the point hold any 64-bit float whole.
            return Self::decimal(negative, &format!("{value:.1074}"));
        }
        if !plain.bytes().next().is_some_and(|b| b.is_ascii_digit() || b == b'.') {
            return None;
        }
        if plain.parse::<f64>().ok()?.is_infinite() {
            return None;
        }
        Self::decimal(negative, &plain)
    }

    /// The float that Flux compares; for keys of digits and one point.
    pub(super) fn as_float(key: &str) -> f64 {
        key.parse().unwrap_or(f64::INFINITY)
    }

    /// Reads a valid decimal without a sign.
    fn decimal(negative: bool, text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent = exponent_of(exponent);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let leading = digits.iter().take_while(|d| **d == b'0').count();
        let trailing = digits.iter().rev().take_while(|d| **d == b'0').count();
        if leading == digits.len() {
            let digits = Vec::new();
            return Some(Number { negative: false, infinite: false, digits, point: 0 });
        }
        let point = i64::try_from(whole.len()).ok()? - i64::try_from(leading).ok()? + exponent;
        let digits = digits[leading..digits.len() - trailing].to_vec();
        Some(Number { negative, infinite: false, digits, point })
    }

    fn magnitude(&self, other: &Self) -> Ordering {
        let rank = |n: &Self| (n.infinite, !n.digits.is_empty());
        // Without leading zeros the point decides, then the digits as text.
        rank(self)
            .cmp(&rank(other))
            .then(self.point.cmp(&other.point))
            .then_with(|| self.digits.cmp(&other.digits))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.magnitude(other),
            (true, true) => other.magnitude(self),
            (one, another) => another.cmp(&one),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Takes `_` out where Go lets it stand: between digits, or between `0x` and a digit.
fn without_underscores(text: &str) -> Option<String> {
    if !text.contains('_') {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let hexadecimal = text.len() > 1 && bytes[0] == b'0' && matches!(bytes[1], b'x' | b'X');
    let digit = |b: u8| b.is_ascii_digit() || (hexadecimal && b.is_ascii_hexdigit());
    for (at, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'_') {
        let before = at > 0 && (digit(bytes[at - 1]) || (hexadecimal && at == 2));
        let after = bytes.get(at + 1).is_some_and(|b| digit(*b));
        if !before || !after {
            return None;
        }
    }
    Some(text.replace('_', ""))
}

/// An exponent of digits with an optional sign; one beyond all bounds is cut, which no float sees.
fn exponent_of(text: &str) -> i64 {
    const BOUND: i64 = 1 << 40;
    let beyond = if text.starts_with('-') { -BOUND } else { BOUND };
    text.parse().map_or(beyond, |exponent: i64| exponent.clamp(-BOUND, BOUND))
}

/// `1.8p-3` after `0x`: hexadecimal digits with a point, and an exponent of two that must be there.
fn hexadecimal_float(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = whole.chars().chain(fraction.chars()).peekable();
    digits.peek()?;
    // 60 bits of the mantissa, and whether anything but zeros follows them: enough to round
    // once to 53 bits, as the float's own conversion does.
    let (mut value, mut dropped, mut sticky) = (0_u64, 0_i64, false);
    for digit in digits {
        let digit = u64::from(digit.to_digit(16)?);
        if value < 1 << 56 {
            value = value << 4 | digit;
        } else {
            dropped += 4;
            sticky |= digit != 0;
        }
    }
    let value = value | u64::from(sticky);
    let exponent: i64 =
        exponent.parse().unwrap_or(if exponent.starts_with('-') { -(1 << 40) } else { 1 << 40 });
    let scale = exponent - 4 * i64::try_from(fraction.len()).ok()? + dropped;
    if value == 0 {
        return Some(0.0);
    }
    // Two steps, so that neither factor leaves the range of a float before the product does.
    let scale = i32::try_from(scale.clamp(-3000, 3000)).ok()?;
    let half = scale / 2;
    let scaled = value as f64 * 2_f64.powi(half) * 2_f64.powi(scale - half);
    scaled.is_finite().then_some(scaled)
}
