//! Pure: a data key that is split over key groups, joined again (Shamir over GF(2^8)).
//!
//! The field is Rijndael's, x^8 + x^4 + x^3 + x + 1; the last byte of a share is its x coordinate,
//! as in HashiCorp's implementation, which SOPS uses. Any number of shares at or above the
//! threshold gives the same secret.

use zeroize::Zeroizing;

/// Joins shares; `None` where they do not belong together.
pub(super) fn combine(shares: &[Zeroizing<Vec<u8>>]) -> Option<Zeroizing<Vec<u8>>> {
    let length = shares.first()?.len();
    if shares.len() < 2 || length < 2 || shares.iter().any(|share| share.len() != length) {
        return None;
    }
    let xs: Vec<u8> = shares.iter().map(|share| share[length - 1]).collect();
    if xs.iter().enumerate().any(|(index, x)| xs[..index].contains(x)) {
        return None;
    }
    let mut secret = Zeroizing::new(vec![0; length - 1]);
    for (share, x) in shares.iter().zip(&xs) {
        // Lagrange's basis at 0: the product of x_j / (x_j - x), where minus is exclusive or.
        let basis = xs
            .iter()
            .filter(|other| *other != x)
            .fold(1, |product, other| multiply(product, multiply(*other, inverse(other ^ x))));
        for (byte, y) in secret.iter_mut().zip(share.iter()) {
            *byte ^= multiply(*y, basis);
        }
    }
    Some(secret)
}

/// The product in GF(2^8), in constant time.
fn multiply(a: u8, b: u8) -> u8 {
    let mut product = 0u8;
    for bit in (0..8).rev() {
        let carry = (product >> 7).wrapping_neg() & 0x1b;
        product = (product << 1) ^ carry ^ ((b >> bit & 1).wrapping_neg() & a);
    }
    product
}

/// a^254, which is 1/a: the multiplicative group has 255 elements.
fn inverse(a: u8) -> u8 {
    (0..254).fold(1, |power, _| multiply(power, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_rijndaels() {
        // The worked example of FIPS 197, section 4.2.
        assert_eq!(multiply(0x57, 0x83), 0xc1);
        assert!((1..=255).all(|a| multiply(a, inverse(a)) == 1));
    }

    #[test]
    fn any_two_points_of_a_line_give_its_value_at_zero() {
        let share = |x: u8| Zeroizing::new(vec![42 ^ multiply(7, x), 9 ^ multiply(200, x), x]);
        for (a, b) in [(1, 2), (2, 3), (3, 1)] {
            assert_eq!(combine(&[share(a), share(b)]).as_deref(), Some(&vec![42, 9]));
        }
        assert_eq!(combine(&[share(1), share(1)]), None);
        assert_eq!(combine(&[share(1)]), None);
        assert_eq!(combine(&[]), None);
    }
}
