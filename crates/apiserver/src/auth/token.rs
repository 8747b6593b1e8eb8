//! JSON web tokens signed with ECDSA P-256 (ES256): the form, not what the claims mean.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// DER of a P-256 SubjectPublicKeyInfo up to the point.
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Tokens larger than this are no tokens of ours.
const TOKEN_LIMIT_BYTES: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the service account key is no PKCS#8 PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    #[error("the service account key is no P-256 key: {0}")]
    Key(ring::error::KeyRejected),
}

/// Why a token was not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("it is malformed")]
    Malformed,
    #[error("it is signed by a key that is not known here")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
}

/// Signs tokens and knows its own signatures.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    key_id: String,
}

impl TokenKey {
    /// Takes a PKCS#8 PEM private key.
    ///
    /// # Errors
    /// When it is not a P-256 key.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(KeyError::Pem)?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random)
            .map_err(KeyError::Key)?;
        let mut spki = P256_SPKI_PREFIX.to_vec();
        spki.extend_from_slice(pair.public_key().as_ref());
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(&spki));
        Ok(TokenKey { pair, random, key_id })
    }

    /// Makes a token of these claims; `None` if the system gives no randomness.
    pub fn sign(&self, claims: &Value) -> Option<String> {
        let header = json!({ "alg": "ES256", "kid": self.key_id });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = self.pair.sign(&self.random, signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that this key has signed.
    ///
    /// # Errors
    /// When the token is anything else.
    pub fn verify(&self, token: &str) -> Result<Value, TokenError> {
        let (header, claims) = peek(token).ok_or(TokenError::Malformed)?;
        if header["alg"] != "ES256" || header["kid"].as_str().is_some_and(|id| id != self.key_id) {
            return Err(TokenError::UnknownKey);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| TokenError::Signature)?;
        Ok(claims)
    }

    /// The public key as a JSON web key set.
    pub fn key_set(&self) -> Value {
        // An uncompressed point: one byte of form, then both coordinates.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at_checked(32).unwrap_or_default();
        json!({ "keys": [{
            "use": "sig", "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self.key_id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }] })
    }
}

/// Header and claims, unverified; `None` if the text is no token.
fn peek(token: &str) -> Option<(Value, Value)> {
    if token.len() > TOKEN_LIMIT_BYTES {
        return None;
    }
    let mut parts = token.split('.');
    let mut part = || -> Option<Value> {
        let bytes = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    let (header, claims) = (part()?, part()?);
    (parts.next().is_some() && parts.next().is_none()).then_some((header, claims))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TokenKey {
        TokenKey::from_pem(&kminik_base::pki::generate_key().unwrap().0).unwrap()
    }

    #[test]
    fn a_key_knows_its_own_tokens_only() {
        let (own, other) = (key(), key());
        let claims = json!({"sub": "a"});
        let token = own.sign(&claims).unwrap();
        assert_eq!(own.verify(&token), Ok(claims));
        assert_eq!(other.verify(&token), Err(TokenError::UnknownKey));
        assert_eq!(own.verify("nonsense"), Err(TokenError::Malformed));
        let forged = token.replacen('.', &format!(".{}", URL_SAFE_NO_PAD.encode("{\"sub\":\"b\"}")), 1);
        assert!(own.verify(&forged).is_err());
        let (header, rest) = token.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let swapped = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode("{\"sub\":\"b\"}"));
        assert_eq!(own.verify(&swapped), Err(TokenError::Signature));
        let none = URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}");
        assert_eq!(own.verify(&format!("{none}.{}.", URL_SAFE_NO_PAD.encode("{}"))), Err(TokenError::UnknownKey));
    }

    #[test]
    fn the_key_set_holds_the_point() {
        let keys = key().key_set();
        let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(keys["keys"][0][name].as_str().unwrap()).unwrap();
        assert_eq!((coordinate("x").len(), coordinate("y").len()), (32, 32));
    }
}
