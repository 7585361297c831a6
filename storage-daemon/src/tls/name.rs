//! The name of a certificate's owner, as authorization rules compare it: `C=DE,O=Company,CN=host`.
//!
//! Reads just so much of a certificate (X.690, RFC 5280) as leads to the name, and writes it with the escapes of
//! RFC 4514, but in the order of the certificate: so have rules been written until now.
//! That the certificate is good is for others to know.

use std::fmt::Write as _;

/// The parts of a value: tag, contents, what follows.
type Item<'a> = (u8, &'a [u8], &'a [u8]);

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// The version of a certificate, which may be left out.
const VERSION: u8 = 0xA0;

/// The subject of a certificate in DER; `None` when it cannot be read.
pub fn subject(certificate: &[u8]) -> Option<String> {
    let (whole, _) = expect(certificate, SEQUENCE)?;
    let (mut signed, _) = expect(whole, SEQUENCE)?;
    if let Some((VERSION, _, rest)) = item(signed) {
        signed = rest;
    }
    let (_, after_number) = expect(signed, INTEGER)?;
    let (_, after_algorithm) = expect(after_number, SEQUENCE)?;
    let (_, after_issuer) = expect(after_algorithm, SEQUENCE)?;
    let (_, after_validity) = expect(after_issuer, SEQUENCE)?;
    let (mut names, _) = expect(after_validity, SEQUENCE)?;
    let mut parts = Vec::new();
    while !names.is_empty() {
        let (mut set, rest) = expect(names, SET)?;
        names = rest;
        let mut part = String::new();
        while !set.is_empty() {
            let (pair, rest) = expect(set, SEQUENCE)?;
            set = rest;
            if !part.is_empty() {
                part.push('+');
            }
            attribute(&mut part, pair)?;
        }
        parts.push(part);
    }
    Some(parts.join(","))
}

fn item(bytes: &[u8]) -> Option<Item<'_>> {
    let [tag, length, rest @ ..] = bytes else {
        return None;
    };
    let (length, rest) = match length {
        0..=0x7F => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7F))?;
            let length = digits
                .iter()
                .fold(0_usize, |length, digit| length << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((*tag, contents, rest))
}

/// A value that has to be of this kind, and what follows it.
fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    match item(bytes)? {
        (tag, contents, rest) if tag == wanted => Some((contents, rest)),
        _ => None,
    }
}

fn attribute(out: &mut String, pair: &[u8]) -> Option<()> {
    let (id, rest) = expect(pair, OBJECT_IDENTIFIER)?;
    let (tag, value, _) = item(rest)?;
    match short_name(id) {
        Some(name) => out.push_str(name),
        None => dotted(out, id)?,
    }
    out.push('=');
    let text = match tag {
        // UTF8String, NumericString, PrintableString, T61String, IA5String, VisibleString
        0x0C | 0x12 | 0x13 | 0x14 | 0x16 | 0x1A => String::from_utf8_lossy(value).into_owned(),
        // BMPString
        0x1E => {
            let units = value.chunks_exact(2).map(|pair| {
                u16::from_be_bytes([
                    pair.first().copied().unwrap_or(0),
                    pair.get(1).copied().unwrap_or(0),
                ])
            });
            char::decode_utf16(units)
                .map(|unit| unit.unwrap_or('\u{FFFD}'))
                .collect()
        }
        _ => {
            out.push('#');
            for byte in rest.get(..rest.len())? {
                let _ = write!(out, "{byte:02x}");
            }
            return Some(());
        }
    };
    escaped(out, &text);
    Some(())
}

fn short_name(id: &[u8]) -> Option<&'static str> {
    Some(match id {
        [0x55, 0x04, 0x03] => "CN",
        [0x55, 0x04, 0x04] => "sn",
        [0x55, 0x04, 0x05] => "serialNumber",
        [0x55, 0x04, 0x06] => "C",
        [0x55, 0x04, 0x07] => "L",
        [0x55, 0x04, 0x08] => "ST",
        [0x55, 0x04, 0x09] => "street",
        [0x55, 0x04, 0x0A] => "O",
        [0x55, 0x04, 0x0B] => "OU",
        [0x55, 0x04, 0x0C] => "title",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 0x01, 0x01] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 0x01, 0x19] => "DC",
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x01] => "EMAIL",
        _ => return None,
    })
}

/// An object identifier as numbers with dots between them.
fn dotted(out: &mut String, id: &[u8]) -> Option<()> {
    let mut number = 0_u64;
    let mut first = true;
    for byte in id {
        number = number.checked_mul(128)? + u64::from(byte & 0x7F);
        if byte & 0x80 != 0 {
            continue;
        }
        if first {
            let top = (number / 40).min(2);
            let _ = write!(out, "{top}.{}", number - top * 40);
            first = false;
        } else {
            let _ = write!(out, ".{number}");
        }
        number = 0;
    }
    Some(())
}

fn escaped(out: &mut String, text: &str) {
    let last = text.chars().count().saturating_sub(1);
    for (at, character) in text.chars().enumerate() {
        let special = matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (at == 0 && matches!(character, '#' | ' '))
            || (at == last && character == ' ');
        if special {
            out.push('\\');
        }
        out.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    #[test]
    fn a_name_in_the_order_of_the_certificate() {
        let mut names = DistinguishedName::new();
        names.push(DnType::CountryName, "DE");
        names.push(DnType::OrganizationName, "Company, Inc.");
        names.push(DnType::CommonName, "host.example");
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = names;
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(
            subject(certificate.der()).unwrap(),
            "C=DE,O=Company\\, Inc.,CN=host.example"
        );
    }

    #[test]
    fn anything_else_is_nothing() {
        let bytes: Vec<u8> = (0..=255).cycle().take(4000).collect();
        for start in 0..400 {
            assert_eq!(subject(&bytes[start..]), None);
        }
        for bytes in [&b""[..], b"0", b"0\x84\xff\xff\xff\xff", b"0\x00"] {
            assert_eq!(subject(bytes), None);
        }
    }
}
