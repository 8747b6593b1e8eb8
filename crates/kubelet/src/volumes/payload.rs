//! Files of configMap, secret, downwardAPI and projected volumes.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource, SecretVolumeSource,
    ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use kminik_client::ObjectKey;

use super::atomic_writer::{File, Payload, valid};
use super::{Context, VolumeError};
use crate::container::downward;
use crate::pods::view::PodView;

const DEFAULT_MODE: i32 = 0o644;

/// The payload of a volume, if it is one of these kinds.
pub(super) async fn of(context: &Context<'_>, volume: &Volume) -> Result<Option<Payload>, VolumeError> {
    let mut payload = Payload::new();
    if let Some(source) = &volume.config_map {
        config_map(context, source, &mut payload).await?;
    } else if let Some(source) = &volume.secret {
        secret(context, source, &mut payload).await?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        downward_api(context, source.items.as_deref().unwrap_or_default(), mode, &mut payload)?;
    } else if let Some(source) = &volume.projected {
        projected(context, source, &mut payload).await?;
    } else {
        return Ok(None);
    }
    Ok(Some(payload))
}

async fn config_map(
    context: &Context<'_>,
    source: &ConfigMapVolumeSource,
    out: &mut Payload,
) -> Result<(), VolumeError> {
    let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
    config_map_items(context, &source.name, source.items.as_deref(), source.optional == Some(true), mode, out).await
}

async fn config_map_items(
    context: &Context<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
    out: &mut Payload,
) -> Result<(), VolumeError> {
    let key = ObjectKey::new(&context.view.namespace, name);
    let Some(map) = context.objects.config_map(&context.view.uid, &key).await? else {
        return if optional { Ok(()) } else { Err(VolumeError::NoConfigMap(name.to_string())) };
    };
    let text = |key: &str| map.data.as_ref().and_then(|d| d.get(key)).map(|v| v.clone().into_bytes());
    let binary = |key: &str| map.binary_data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.clone());
    let keys = map.data.iter().flat_map(|d| d.keys()).chain(map.binary_data.iter().flat_map(|d| d.keys()));
    put(out, keys.cloned().collect(), |key| text(key).or_else(|| binary(key)), items, optional, mode, "configmap", &key)
}

async fn secret(context: &Context<'_>, source: &SecretVolumeSource, out: &mut Payload) -> Result<(), VolumeError> {
    let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
    let name = source.secret_name.as_deref().unwrap_or_default();
    secret_items(context, name, source.items.as_deref(), source.optional == Some(true), mode, out).await
}

async fn secret_items(
    context: &Context<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
    out: &mut Payload,
) -> Result<(), VolumeError> {
    let key = ObjectKey::new(&context.view.namespace, name);
    let Some(secret) = context.objects.secret(&context.view.uid, &key).await? else {
        return if optional { Ok(()) } else { Err(VolumeError::NoSecret(name.to_string())) };
    };
    let value = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|ByteString(bytes)| bytes.clone());
    let keys = secret.data.iter().flat_map(|d| d.keys()).cloned().collect();
    put(out, keys, value, items, optional, mode, "secret", &key)
}

#[allow(clippy::too_many_arguments)]
fn put(
    out: &mut Payload,
    keys: Vec<String>,
    value: impl Fn(&str) -> Option<Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
    kind: &'static str,
    object: &ObjectKey,
) -> Result<(), VolumeError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for key in keys {
            if let Some(content) = value(&key) {
                out.insert(key, File { content, mode: bits(mode), uid: None });
            }
        }
        return Ok(());
    };
    for item in items {
        let Some(content) = value(&item.key) else {
            if optional {
                continue;
            }
            return Err(VolumeError::NoKey { kind, object: object.clone(), key: item.key.clone() });
        };
        insert(out, &item.path, File { content, mode: bits(item.mode.unwrap_or(mode)), uid: None })?;
    }
    Ok(())
}

fn insert(out: &mut Payload, path: &str, file: File) -> Result<(), VolumeError> {
    if !valid(path) {
        return Err(VolumeError::Path(path.to_string()));
    }
    out.insert(path.to_string(), file);
    Ok(())
}

fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o7777
}

fn downward_api(
    context: &Context<'_>,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    out: &mut Payload,
) -> Result<(), VolumeError> {
    for item in items {
        let content = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => downward::field(field, context.view, context.around)?,
            (None, Some(resource)) => downward::resource(resource, context.view, None, context.around)?,
            (None, None) => continue,
        };
        insert(
            out,
            &item.path,
            File { content: content.into_bytes(), mode: bits(item.mode.unwrap_or(mode)), uid: None },
        )?;
    }
    Ok(())
}

async fn projected(
    context: &Context<'_>,
    source: &ProjectedVolumeSource,
    out: &mut Payload,
) -> Result<(), VolumeError> {
    let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
    for part in source.sources.iter().flatten() {
        projection(context, part, mode, out).await?;
    }
    Ok(())
}

async fn projection(
    context: &Context<'_>,
    part: &VolumeProjection,
    mode: i32,
    out: &mut Payload,
) -> Result<(), VolumeError> {
    if let Some(source) = &part.config_map {
        let optional = source.optional == Some(true);
        config_map_items(context, &source.name, source.items.as_deref(), optional, mode, out).await?;
    } else if let Some(source) = &part.secret {
        secret_items(context, &source.name, source.items.as_deref(), source.optional == Some(true), mode, out).await?;
    } else if let Some(source) = &part.downward_api {
        downward_api(context, source.items.as_deref().unwrap_or_default(), mode, out)?;
    } else if let Some(source) = &part.service_account_token {
        token(context, source, mode, out).await?;
    } else {
        return Err(VolumeError::Unsupported);
    }
    Ok(())
}

async fn token(
    context: &Context<'_>,
    source: &ServiceAccountTokenProjection,
    mode: i32,
    out: &mut Payload,
) -> Result<(), VolumeError> {
    let content = context.tokens.get(context.view, source).await?;
    let uid = single_user(context.view);
    let narrow = uid.is_some() || super::fs_group(context.view).is_some();
    let mode = if narrow { 0o600 } else { bits(mode) };
    insert(out, &source.path, File { content: content.into_bytes(), mode, uid })
}

/// The user that all containers of the pod run as, if the spec says so.
fn single_user(view: &PodView) -> Option<u32> {
    let pod = view.spec().security_context.as_ref().and_then(|c| c.run_as_user);
    let mut users =
        view.containers.iter().map(|c| c.spec.security_context.as_ref().and_then(|c| c.run_as_user).or(pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}
