//! Bootstrap tokens: by which a worker without a certificate asks for its first.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use super::answered;
use crate::drivers::Machine;
use crate::reason::{Failure, MK_INTERNAL, OrFail, Outcome};

/// Of the names of tokens, as the API knows them.
const PREFIX: &str = "bootstrap-token-";
/// How long it is good, in minutes.
const MINUTES: i64 = 15;
/// Of what tokens are made: the API accepts no other characters.
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Makes one and has the API know it; it is removed there when it has expired.
///
/// # Errors
/// `K8S_NOT_RESPONDING`.
pub async fn make(client: &Client, machine: Machine<'_>) -> Outcome<String> {
    let (id, secret) = (random(6)?, random(16)?);
    let expiration = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(MINUTES);
    let object = json!({
        "metadata": { "name": format!("{PREFIX}{id}"), "namespace": "kube-system" },
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": id,
            "token-secret": secret,
            "description": format!("For the node {} to join; made by kminik.", machine.node_name()),
            "expiration": format!("{expiration:.0}"),
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": kminik_controllers::bootstrap_groups(&machine.node_name()).join(","),
        },
    });
    let object: Secret = serde_json::from_value(object).or_fail(&MK_INTERNAL, "cannot make a token")?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    answered(secrets.create(&PostParams::default(), &object)).await?;
    Ok(format!("{id}.{secret}"))
}

/// Has the API not know it any more. One that stays, for the API does not answer, is good until it expires.
pub async fn remove(client: &Client, token: &str) {
    let Some((id, _)) = token.split_once('.') else { return };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    let removed = answered(secrets.delete(&format!("{PREFIX}{id}"), &DeleteParams::default())).await;
    if let Err(failure) = removed {
        tracing::debug!(%failure, "a token stays until it expires");
    }
}

fn random(length: usize) -> Outcome<String> {
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 64];
    while text.len() < length {
        SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::new(&MK_INTERNAL, "cannot make a token"))?;
        // What is beyond the last whole run of the alphabet would make its beginning likelier.
        let fair = bytes.iter().filter(|byte| **byte < 252);
        text.extend(fair.map(|byte| char::from(ALPHABET[usize::from(byte % 36)])).take(length - text.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_form_that_the_api_accepts() {
        let (one, other) = (random(16).unwrap(), random(16).unwrap());
        assert!(one.len() == 16 && one != other);
        assert!(one.bytes().all(|byte| ALPHABET.contains(&byte)), "{one}");
    }
}
