//! Numbers for people.

/// A whole number with thousands separated.
pub fn whole(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value <= -0.5 { format!("-{text}") } else { text }
}

/// A number with as many digits after the point as tell something.
pub fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => whole(value),
        v if v >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_they_tell_something() {
        let shown = [0.0, 0.123, 9.876, 9.999, 12.345, 99.97, 123.4, 1234.5, 1_234_567.0];
        let expected = ["0.00", "0.12", "9.88", "10.0", "12.3", "100", "123", "1,234", "1,234,567"];
        assert_eq!(shown.map(short), expected);
        assert_eq!([0.0, 999.4, -1500.0].map(whole), ["0", "999", "-1,500"]);
    }
}
