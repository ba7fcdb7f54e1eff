//! Signed requests: an HMAC (RFC 2104) over a template of the request as it leaves Envoy.
//!
//! It is applied last and says that path and query leave exactly as they were signed. A request whose body is not all here
//! is refused before (see [`super::inject`]).

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose as Alphabet};
use zeroize::Zeroizing;

use super::template::{Stamp, Template, written};
use super::{Credential, CredentialError, Material, Minting, Outgoing, SlotName, Turn, header, query};
use crate::caller::Caller;
use crate::config::{HmacAlgorithm, HmacCredential, KeyEncoding, SignatureEncoding};
use crate::freshness::Key;
use crate::hex::hex;
use crate::request::mint_decision_id;
use crate::secret::SecretBytes;
use crate::sources::Sources;

/// The shortest key that signs, in bytes after decoding.
const MIN_KEY_BYTES: usize = 8;

/// Base64 as people write keys.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const LENIENT_STANDARD: Alphabet = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
const LENIENT_URL_SAFE: Alphabet = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);

/// A signature with a shared key.
#[derive(Clone, Debug)]
pub struct Hmac(pub HmacCredential);

impl Credential for Hmac {
    fn kind(&self) -> &'static str {
        "hmac"
    }

    fn places(&self) -> Vec<SlotName> {
        let headers = self.0.headers.iter().map(|place| SlotName::Header(place.name.clone()));
        let query = self.0.query.iter().map(|place| SlotName::Query(query::encode(place.name.as_bytes()).to_string()));
        headers.chain(query).collect()
    }

    fn references(&self) -> Vec<String> {
        let mut references = vec![self.0.secret.reference.clone()];
        references.extend(self.0.key_id.clone());
        references
    }

    fn key(&self, _caller: &Caller) -> Option<Key> {
        None
    }

    fn mint(self: Arc<Self>, caller: Arc<Caller>, sources: Arc<Sources>) -> Minting {
        header::fetch(self.0.secret.clone(), caller, sources)
    }

    fn decoded(&self, secret: &[u8]) -> Option<SecretBytes> {
        let encoding = self.0.key_encoding;
        let key = (encoding != KeyEncoding::Raw).then(|| decoded(secret, encoding))?;
        key.ok().map(|key| SecretBytes::new(key.to_vec()))
    }

    fn turn(&self) -> Turn {
        Turn::Sign
    }

    fn apply(&self, material: &Material, outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError> {
        self.sign(material, outgoing, SystemTime::now(), mint_decision_id())
    }
}

impl Hmac {
    fn sign(
        &self,
        material: &Material,
        outgoing: &mut Outgoing<'_>,
        time: SystemTime,
        nonce: String,
    ) -> Result<(), CredentialError> {
        let secret = material.get(header::SECRET).ok_or(CredentialError::Missing("secret"))?;
        let key = decoded(secret, self.0.key_encoding)?;
        outgoing.scrub(&key);
        let stamp = Stamp {
            timestamp: written(time, self.0.timestamp),
            nonce,
            key_id: self.0.key_id.clone().unwrap_or_default(),
            query_order: self.0.query_order,
        };
        let template = |text: &str| Template::parse(text).map_err(|error| CredentialError::Unfit(error.to_string()));
        let message = template(&self.0.message)?.fill(outgoing, &stamp, None)?;
        let signature = hmac::sign(&hmac::Key::new(algorithm(self.0.algorithm), &key), &message);
        // Found in every form: as it is, in hexadecimal digits and in base64.
        outgoing.scrub(signature.as_ref());
        let signature = encoded(signature.as_ref(), self.0.encoding);
        // All values first: no place that is filled changes another.
        let fill = |text: &str| -> Result<String, CredentialError> {
            let value = template(text)?.fill(outgoing, &stamp, Some(&signature))?;
            String::from_utf8(value.to_vec()).map_err(|_| CredentialError::NotUtf8)
        };
        let headers: Vec<String> =
            self.0.headers.iter().map(|place| fill(&place.template)).collect::<Result<_, _>>()?;
        let query: Vec<String> = self.0.query.iter().map(|place| fill(&place.template)).collect::<Result<_, _>>()?;
        for (place, value) in self.0.headers.iter().zip(headers) {
            outgoing.set_header(&place.name, &value)?;
        }
        for (place, value) in self.0.query.iter().zip(query) {
            outgoing.set_query(&query::encode(place.name.as_bytes()), &query::encode(value.as_bytes()));
        }
        outgoing.keep_target();
        Ok(())
    }
}

fn algorithm(algorithm: HmacAlgorithm) -> hmac::Algorithm {
    match algorithm {
        HmacAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        HmacAlgorithm::Sha256 => hmac::HMAC_SHA256,
        HmacAlgorithm::Sha512 => hmac::HMAC_SHA512,
    }
}

fn encoded(signature: &[u8], encoding: SignatureEncoding) -> String {
    match encoding {
        SignatureEncoding::Hex => hex(signature),
        SignatureEncoding::Base64 => STANDARD.encode(signature),
        SignatureEncoding::Base64url => URL_SAFE_NO_PAD.encode(signature),
    }
}

fn decoded(secret: &[u8], encoding: KeyEncoding) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    let unfit = || CredentialError::Unfit("the key is not written as `key_encoding` says".to_owned());
    let key = match encoding {
        KeyEncoding::Raw => secret.to_vec(),
        KeyEncoding::Hex => {
            let text = std::str::from_utf8(secret.trim_ascii()).map_err(|_| unfit())?;
            let byte = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
            if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(unfit());
            }
            (0..text.len()).step_by(2).map(byte).collect::<Option<_>>().ok_or_else(unfit)?
        }
        KeyEncoding::Base64 => {
            let text = secret.trim_ascii();
            LENIENT_STANDARD.decode(text).or_else(|_| LENIENT_URL_SAFE.decode(text)).map_err(|_| unfit())?
        }
    };
    let key = Zeroizing::new(key);
    if key.len() < MIN_KEY_BYTES { Err(CredentialError::TooShort) } else { Ok(key) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::config::{QueryOrder, SecretSource, SignedPlace, TimestampFormat};

    fn configured(message: &str) -> HmacCredential {
        HmacCredential {
            secret: SecretSource { reference: "env://KEY".into(), json_key: None, trim_newline: false },
            key_encoding: KeyEncoding::Raw,
            algorithm: HmacAlgorithm::Sha256,
            message: message.into(),
            timestamp: TimestampFormat::Unix,
            query_order: QueryOrder::AsIs,
            encoding: SignatureEncoding::Hex,
            key_id: None,
            headers: vec![SignedPlace { name: "x-signature".into(), template: "{signature}".into() }],
            query: Vec::new(),
        }
    }

    fn signature(configured: HmacCredential, key: &[u8], body: &[u8]) -> String {
        let mut outgoing = Outgoing::plain("POST", "https", "api.example", "/a?b=c", body);
        let time = UNIX_EPOCH + Duration::from_secs(1_531_420_618);
        let material = Material::new().secret("secret", key.to_vec());
        Hmac(configured).sign(&material, &mut outgoing, time, "00".into()).unwrap();
        outgoing.header("x-signature").unwrap().to_owned()
    }

    /// RFC 2202 and RFC 4231, test case 2 (and 1 of the others), whose keys are long enough to be a secret of ours.
    #[test]
    fn the_published_vectors_come_out() {
        let key = [0x0b; 20];
        let cases = [
            (HmacAlgorithm::Sha1, "b617318655057264e28bc0b6fb378c8ef146be00"),
            (HmacAlgorithm::Sha256, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                HmacAlgorithm::Sha512,
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4\
                 be9d914eeb61f1702e696c203a126854",
            ),
        ];
        for (algorithm, expected) in cases {
            let configured = HmacCredential { algorithm, ..configured("{body}") };
            assert_eq!(signature(configured, &key, b"Hi There"), expected);
        }
        // Case 4: 25 bytes of key, 50 of data.
        let key: Vec<u8> = (1..=25).collect();
        let got = signature(configured("{body}"), &key, &[0xcd; 50]);
        assert_eq!(got, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b");
    }

    /// The example of GitHub's documentation on validating webhook deliveries.
    #[test]
    fn a_published_example_comes_out() {
        let got = signature(configured("{body}"), b"It's a Secret to Everybody", b"Hello, World!");
        assert_eq!(got, "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
    }

    #[test]
    fn keys_and_signatures_are_read_and_written_as_configured() {
        let plain = signature(configured("{timestamp}.{body}"), b"0123456789abcdef", b"x");
        for (encoding, key) in [
            (KeyEncoding::Hex, "30313233343536373839616263646566\n"),
            (KeyEncoding::Base64, "MDEyMzQ1Njc4OWFiY2RlZg=="),
            (KeyEncoding::Base64, "MDEyMzQ1Njc4OWFiY2RlZg"),
        ] {
            let configured = HmacCredential { key_encoding: encoding, ..configured("{timestamp}.{body}") };
            assert_eq!(signature(configured, key.as_bytes(), b"x"), plain);
        }
        let base64 = HmacCredential { encoding: SignatureEncoding::Base64, ..configured("{timestamp}.{body}") };
        assert_eq!(STANDARD.decode(signature(base64, b"0123456789abcdef", b"x")).map(|raw| hex(&raw)), Ok(plain));
        for (encoding, key) in [
            (KeyEncoding::Hex, "3031 3"),
            (KeyEncoding::Hex, "zz"),
            (KeyEncoding::Base64, "!!"),
            (KeyEncoding::Hex, "30"),
        ] {
            assert!(decoded(key.as_bytes(), encoding).is_err(), "{key}");
        }
    }

    #[test]
    fn a_signature_in_the_query_does_not_sign_itself_and_is_scrubbed() {
        let place = |name: &str, template: &str| SignedPlace { name: name.into(), template: template.into() };
        let configured = HmacCredential {
            headers: Vec::new(),
            query: vec![place("ts", "{timestamp}"), place("sig", "{signature}")],
            ..configured("{method} {target}")
        };
        let mut outgoing = Outgoing::plain("GET", "https", "api.example", "/a?b=c", b"");
        let material = Material::new().secret("secret", b"0123456789abcdef".to_vec());
        Hmac(configured).sign(&material, &mut outgoing, UNIX_EPOCH, "00".into()).unwrap();
        let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef"), b"GET /a?b=c");
        assert_eq!(outgoing.target(), format!("/a?b=c&ts=0&sig={}", hex(expected.as_ref())));
    }
}
