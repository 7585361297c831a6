//! The bytes of secrets: written down as text or base64, in the clear or encrypted with another secret.

use std::path::Path;
use std::sync::Arc;

use aes::Aes256;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockDecryptMut, KeyIvInit};
use qapi_runtime::Error;

use crate::process::{os_text, read_at_most};

/// Largest secret that is read from a file.
const MAX_SECRET_BYTES: u64 = 1 << 20;
/// Bytes of a master key.
const KEY_BYTES: usize = 32;
/// Base64 without padding, and whatever the unused bits of its last letter are.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);
/// Bytes of a cipher block, and so of an initialization vector.
const BLOCK_BYTES: usize = 16;

/// The bytes of a secret. `key` finds the secret that it is encrypted with, once there is something to decrypt.
pub fn load(
    secret: &schema::SecretProperties,
    key: impl FnOnce() -> Result<Option<Arc<[u8]>>, Error>,
) -> Result<Vec<u8>, Error> {
    let is_base64 = secret.base.format == Some(schema::QCryptoSecretFormat::Base64);
    let raw = read(secret)?;
    if let Some(key) = key()? {
        return decrypt(raw, is_base64, &key, secret.base.iv.as_deref());
    }
    if is_base64 {
        return decode_base64(&raw);
    }
    if std::str::from_utf8(&raw).is_err() {
        return Err(Error::generic("Data from secret is not valid UTF-8"));
    }
    Ok(raw)
}

fn read(secret: &schema::SecretProperties) -> Result<Vec<u8>, Error> {
    match (&secret.data, &secret.file) {
        (Some(_), Some(_)) => Err(Error::generic("'file' and 'data' are mutually exclusive")),
        (None, None) => Err(Error::generic("Either 'file' or 'data' must be provided")),
        (Some(data), None) => Ok(data.clone().into_bytes()),
        (None, Some(file)) => {
            let fail = |error: std::io::Error| {
                Error::generic(format!(
                    "Unable to read {file}: Failed to open file “{file}”: {}",
                    os_text(&error)
                ))
            };
            read_at_most(Path::new(file), MAX_SECRET_BYTES)
                .map_err(fail)?
                .ok_or_else(|| Error::generic(format!("Secret file {file} is too large")))
        }
    }
}

/// AES-256 in CBC mode, padded as PKCS #7 says.
fn decrypt(raw: Vec<u8>, is_base64: bool, key: &[u8], iv: Option<&str>) -> Result<Vec<u8>, Error> {
    let key: &[u8; KEY_BYTES] = key
        .try_into()
        .map_err(|_| Error::generic(format!("Key should be {KEY_BYTES} bytes in length")))?;
    let Some(iv) = iv else {
        return Err(Error::generic("IV is required to decrypt secret"));
    };
    let iv = decode_base64(iv.as_bytes())?;
    let iv: &[u8; BLOCK_BYTES] = iv.as_slice().try_into().map_err(|_| {
        Error::generic(format!(
            "IV should be {BLOCK_BYTES} bytes in length not {}",
            iv.len()
        ))
    })?;
    let mut text = if is_base64 { decode_base64(&raw)? } else { raw };
    let length = text.len();
    if !length.is_multiple_of(BLOCK_BYTES) {
        return Err(Error::generic(format!(
            "Length {length} must be a multiple of block size {BLOCK_BYTES}"
        )));
    }
    cbc::Decryptor::<Aes256>::new(key.into(), iv.into())
        .decrypt_padded_mut::<NoPadding>(&mut text)
        .map_err(|_| Error::generic("The secret cannot be decrypted"))?;
    // An empty text has not even padding.
    let Some(padding) = text.last().map(|last| usize::from(*last)) else {
        return Ok(text);
    };
    if padding > BLOCK_BYTES || padding > length {
        return Err(Error::generic(format!(
            "Incorrect number of padding bytes ({padding}) found on decrypted data"
        )));
    }
    text.truncate(length - padding);
    Ok(text)
}

/// Base64 as lenient as the reference takes it: line ends may stand between the letters, and what is left of the
/// last four does not matter.
fn decode_base64(text: &[u8]) -> Result<Vec<u8>, Error> {
    let mut letters: Vec<u8> = text
        .iter()
        .copied()
        .filter(|letter| !matches!(letter, b'=' | b'\n' | b'\r'))
        .collect();
    if letters.len() % 4 == 1 {
        letters.pop();
    }
    LENIENT
        .decode(letters)
        .map_err(|_| Error::generic("Base64 data contains invalid characters"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::{QCryptoSecretFormat, SecretCommonProperties, SecretProperties};

    #[test]
    fn base64() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("TQ==", b"M"),
            ("TQ", b"M"),
            ("TR", b"M"),
            ("TWFuT", b"Man"),
            ("TWE=", b"Ma"),
            ("TWFu", b"Man"),
            ("TWFu\nTQ==\n", b"ManM"),
        ] {
            assert_eq!(decode_base64(text.as_bytes()).unwrap(), bytes, "{text}");
        }
        for text in ["TW*u", "TW Fu", "ä"] {
            assert!(decode_base64(text.as_bytes()).is_err(), "{text}");
        }
    }

    fn secret(data: &str, format: Option<QCryptoSecretFormat>, iv: Option<&str>) -> SecretProperties {
        SecretProperties {
            base: SecretCommonProperties {
                format,
                keyid: None,
                iv: iv.map(str::to_owned),
            },
            data: Some(data.to_owned()),
            file: None,
        }
    }

    #[test]
    fn files_without_an_end_are_refused() {
        let mut endless = secret("", None, None);
        (endless.data, endless.file) = (None, Some("/dev/zero".to_owned()));
        assert_eq!(
            load(&endless, || Ok(None)).unwrap_err().to_string(),
            "Secret file /dev/zero is too large"
        );
    }

    /// Made with `openssl enc -aes-256-cbc -K ... -iv 0`.
    #[test]
    fn encrypted() {
        let key = b"0123456789abcdef0123456789abcdef";
        let iv = "AAAAAAAAAAAAAAAAAAAAAA==";
        let base64 = Some(QCryptoSecretFormat::Base64);
        let text = secret("pZwJZBLuy3mDACEQT4YTBw==", base64, Some(iv));
        assert_eq!(
            load(&text, || Ok(Some(Arc::from(key.as_slice())))).unwrap(),
            b"hello"
        );
        let said = |data: &str, key: &[u8], iv| {
            load(&secret(data, base64, iv), || Ok(Some(key.into())))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            said("AAAA", b"short", Some(iv)),
            "Key should be 32 bytes in length"
        );
        assert_eq!(said("AAAA", key, None), "IV is required to decrypt secret");
        assert_eq!(
            said("AAAA", key, Some("AAAA")),
            "IV should be 16 bytes in length not 3"
        );
        assert_eq!(
            said("AAAA", key, Some(iv)),
            "Length 3 must be a multiple of block size 16"
        );
        assert_eq!(
            said("AAAAAAAAAAAAAAAAAAAAAA==", key, Some(iv)),
            "Incorrect number of padding bytes (36) found on decrypted data"
        );
    }
}
