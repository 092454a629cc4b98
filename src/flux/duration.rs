//! Pure: Go duration strings as Flux's CRDs allow them.
//!
//! `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`: no sign, no bare number, no `us` or `ns`
//! (Flux: API conventions).

use std::time::Duration;

/// Reads `1h30m`, `90s`, `1.5m`, `250ms`. The error says what was found.
pub fn parse_duration(said: &str) -> Result<Duration, String> {
    let wrong = || format!("{said:?} is not a duration such as 10m, 1h30m or 90s");
    let mut rest = said;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        if number.starts_with('.') || number.ends_with('.') {
            return Err(wrong());
        }
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        let (unit, seconds) =
            units.iter().find(|(unit, _)| tail.starts_with(unit)).ok_or_else(wrong)?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &tail[unit.len()..];
    }
    Ok(total)
}

/// Prints a duration for a person, to the second: `1h30m`, `45s`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let text: String =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_crd_allows() {
        for (said, millis) in
            [("10m", 600_000), ("1h30m", 5_400_000), ("1.5m", 90_000), ("250ms", 250), ("0s", 0)]
        {
            assert_eq!(parse_duration(said), Ok(Duration::from_millis(millis)), "{said}");
        }
    }

    #[test]
    fn refuses_what_the_crd_refuses() {
        for said in
            ["", "10", "-1s", "1us", "1h 3m", "h", "1.s", ".5s", "1..5s", "99999999999999999999h"]
        {
            assert!(parse_duration(said).is_err(), "{said}");
        }
    }

    #[test]
    fn prints_for_a_person() {
        assert_eq!(format_duration(Duration::from_secs(5400)), "1h30m");
        assert_eq!(format_duration(Duration::from_millis(400)), "0s");
    }
}
