//! The name of a certificate's owner, as authorization rules compare it: `C=DE,O=Company,CN=host`.
//!
//! Written with the escapes of RFC 4514, but in the order of the certificate: so have rules been written until now.
//! That the certificate is good is for others to know.

use std::fmt::Write as _;

use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{BmpString, ObjectIdentifier};
use x509_cert::der::{Any, Decode, Encode, Tag, Tagged};

/// The subject of a certificate in DER; `None` when it cannot be read.
pub fn subject(certificate: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let mut out = String::new();
    for part in certificate.tbs_certificate().subject().iter_rdn() {
        for (at, attribute) in part.iter().enumerate() {
            match (at, out.is_empty()) {
                (_, true) => {}
                (0, false) => out.push(','),
                (_, false) => out.push('+'),
            }
            write(&mut out, attribute)?;
        }
    }
    Some(out)
}

fn write(out: &mut String, attribute: &AttributeTypeAndValue) -> Option<()> {
    match short_name(&attribute.oid) {
        Some(name) => out.push_str(name),
        None => write!(out, "{}", attribute.oid).ok()?,
    }
    out.push('=');
    if let Some(text) = text(&attribute.value) {
        escaped(out, &text);
    } else {
        out.push('#');
        for byte in attribute.value.to_der().ok()? {
            write!(out, "{byte:02x}").ok()?;
        }
    }
    Some(())
}

/// The text of a value that is one.
fn text(value: &Any) -> Option<String> {
    match value.tag() {
        Tag::Utf8String
        | Tag::NumericString
        | Tag::PrintableString
        | Tag::TeletexString
        | Tag::Ia5String
        | Tag::VisibleString => Some(String::from_utf8_lossy(value.value()).into_owned()),
        Tag::BmpString => Some(value.decode_as::<BmpString>().ok()?.to_string()),
        _ => None,
    }
}

/// The names that rules use, which are not those of RFC 4519 in every case.
fn short_name(id: &ObjectIdentifier) -> Option<&'static str> {
    const NAMES: [(&str, &str); 13] = [
        ("2.5.4.3", "CN"),
        ("2.5.4.4", "sn"),
        ("2.5.4.5", "serialNumber"),
        ("2.5.4.6", "C"),
        ("2.5.4.7", "L"),
        ("2.5.4.8", "ST"),
        ("2.5.4.9", "street"),
        ("2.5.4.10", "O"),
        ("2.5.4.11", "OU"),
        ("2.5.4.12", "title"),
        ("0.9.2342.19200300.100.1.1", "UID"),
        ("0.9.2342.19200300.100.1.25", "DC"),
        ("1.2.840.113549.1.9.1", "EMAIL"),
    ];
    NAMES
        .iter()
        .find(|(dotted, _)| ObjectIdentifier::new(dotted).is_ok_and(|known| known == *id))
        .map(|(_, name)| *name)
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
        names.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99999, 7]), "# own ");
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = names;
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(
            subject(certificate.der()).unwrap(),
            "C=DE,O=Company\\, Inc.,CN=host.example,1.3.6.1.4.1.99999.7=\\# own\\ "
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
