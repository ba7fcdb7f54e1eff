//! What a credential is made of once it is there: named values, which of them are secret, and until when they are good.

use std::sync::Arc;
use std::time::SystemTime;

use crate::freshness::Origin;
use crate::secret::{Secret, SecretBytes};

/// The values of one resolved or minted credential. No `Debug`: it holds secrets, which are wiped when it is dropped.
#[derive(Clone, Default)]
pub struct Material {
    fields: Vec<Field>,
    /// Earlier values that an upstream may still show.
    retired: Vec<Arc<SecretBytes>>,
    expires: Option<SystemTime>,
    origins: Vec<Origin>,
    /// The materials of several credentials that are had together.
    parts: Vec<Arc<Material>>,
}

/// One named value.
#[derive(Clone)]
pub struct Field {
    /// The name, for example `access_token`.
    pub name: String,
    /// The value.
    pub value: Arc<SecretBytes>,
    /// Whether it must never come back from an upstream.
    pub is_secret: bool,
}

// === impl Material ===

impl Material {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Material {
        Material::default()
    }

    /// The materials of several credentials as one.
    #[must_use]
    pub fn together(parts: Vec<Arc<Material>>) -> Material {
        let expires = parts.iter().filter_map(|part| part.expires).min();
        let origins = parts.iter().flat_map(|part| part.origins.iter().cloned()).collect();
        Material { expires, origins, parts, ..Material::default() }
    }

    /// Adds a value that must never come back from an upstream.
    #[must_use]
    pub fn secret(self, name: &str, value: Vec<u8>) -> Material {
        self.with(name, Arc::new(SecretBytes::new(value)), true)
    }

    /// Adds a value that is no secret, such as a key id.
    #[must_use]
    pub fn plain(self, name: &str, value: impl Into<Vec<u8>>) -> Material {
        self.with(name, Arc::new(SecretBytes::new(value.into())), false)
    }

    /// Adds a secret without copying it.
    #[must_use]
    pub fn shared_secret(self, name: &str, value: Arc<SecretBytes>) -> Material {
        self.with(name, value, true)
    }

    /// Adds a secret out of a store, with its earlier values and its origin.
    #[must_use]
    pub fn stored(mut self, name: &str, secret: &Secret) -> Material {
        self.retired.extend(secret.retired.iter().cloned());
        self.origins.extend(secret.origin.iter().cloned());
        self.with(name, secret.value.clone(), true)
    }

    /// Says until when it is good; the earliest such time counts.
    #[must_use]
    pub fn until(mut self, expires: SystemTime) -> Material {
        self.expires = Some(self.expires.map_or(expires, |earlier| earlier.min(expires)));
        self
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|field| field.name == name).map(|field| field.value.expose())
    }

    /// The value of a field as text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Every field.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Until when it is good, where that is known.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// The materials it was put together of.
    #[must_use]
    pub fn parts(&self) -> &[Arc<Material>] {
        &self.parts
    }

    /// Every secret value, those of its parts too.
    #[must_use]
    pub fn secrets(&self) -> Vec<&Arc<SecretBytes>> {
        let own = self.fields.iter().filter(|field| field.is_secret).map(|field| &field.value);
        own.chain(self.parts.iter().flat_map(|part| part.secrets())).collect()
    }

    /// What must never come back: the secret values, and earlier ones.
    #[must_use]
    pub fn scrub(&self) -> Vec<&[u8]> {
        let own = self.fields.iter().filter(|field| field.is_secret).map(|field| &field.value);
        let values = own.chain(&self.retired).map(|value| value.expose());
        values.chain(self.parts.iter().flat_map(|part| part.scrub())).collect()
    }

    /// Earlier values that an upstream may still show.
    #[must_use]
    pub fn retired(&self) -> &[Arc<SecretBytes>] {
        &self.retired
    }

    /// What it came from, to be told when an upstream refuses it.
    #[must_use]
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// The same, coming from `origin` too, while the secrets of `retired` may still be shown.
    pub(crate) fn kept(&self, origin: Origin, retired: &[Arc<Material>]) -> Material {
        let mut material = self.clone();
        material.origins.push(origin);
        material.retired.extend(retired.iter().flat_map(|old| old.secrets().into_iter().cloned()));
        material
    }

    /// Whether both hold the same fields.
    #[must_use]
    pub fn same_values(&self, other: &Material) -> bool {
        self.fields.len() == other.fields.len()
            && self
                .fields
                .iter()
                .zip(&other.fields)
                .all(|(one, two)| one.name == two.name && one.value.ct_eq(&two.value))
            && self.parts.len() == other.parts.len()
            && self.parts.iter().zip(&other.parts).all(|(one, two)| one.same_values(two))
    }

    fn with(mut self, name: &str, value: Arc<SecretBytes>, is_secret: bool) -> Material {
        self.fields.push(Field { name: name.to_owned(), value, is_secret });
        self
    }
}
