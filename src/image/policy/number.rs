//! Pure: the numbers that Go's `strconv.ParseFloat` reads, as 64-bit floats.
//!
//! Decimals with fraction and exponent, hexadecimal floats (`0x1p4`), `inf`, and `_` between
//! digits. What overflows a float is no number. Two keys that are one float, such as integers of 17
//! digits that differ in the last, are a tie, as in Flux.
//!
//! `nan` is the one text that is refused though Go reads it: it is neither above nor below
//! anything, so that Flux's choice would be whatever comes next in its list.

/// Reads a key; `None` where Go's reader would fail.
pub(super) fn number(key: &str) -> Option<f64> {
    let (sign, unsigned) = match key.as_bytes().first()? {
        b'-' => (-1.0, &key[1..]),
        b'+' => (1.0, &key[1..]),
        _ => (1.0, key),
    };
    if ["inf", "infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
        return Some(sign * f64::INFINITY);
    }
    let plain = without_underscores(unsigned)?;
    if let Some(hexadecimal) = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
        return hexadecimal_float(hexadecimal).map(|value| sign * value);
    }
    if !plain.bytes().next().is_some_and(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    plain.parse::<f64>().ok().filter(|value| value.is_finite()).map(|value| sign * value)
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
