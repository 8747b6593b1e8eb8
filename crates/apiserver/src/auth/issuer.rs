//! The OpenID documents by which others verify service account tokens.

use serde_json::{Value, json};

use super::Auth;

/// Path of the discovery document, below the API's address.
pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
/// Path of the key set, below the API's address.
pub const KEYS_PATH: &str = "/openid/v1/jwks";

/// What the key set is served as.
pub const KEYS_MEDIA_TYPE: &str = "application/jwk-set+json";

/// The discovery document. `address` is where the API is reached (`https://10.0.0.2:8443`).
pub fn openid_configuration(auth: &Auth, address: &str) -> Value {
    json!({
        "issuer": auth.tokens.issuer(),
        "jwks_uri": format!("{address}{KEYS_PATH}"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

/// The public keys as a JSON web key set.
pub fn jwks(auth: &Auth) -> Value {
    auth.tokens.key_set()
}
