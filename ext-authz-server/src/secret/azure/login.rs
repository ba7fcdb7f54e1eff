//! Tokens of Microsoft Entra: for a managed identity, for a client secret, or for a token of another issuer.

use super::Azure;
use crate::config::AzureAuth;
use crate::secret::remote::{Call, Grant, StoreError, token};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

// === impl Azure ===

impl Azure {
    /// A token for the vault's resource by the configured method.
    ///
    /// # Errors
    /// What the method needs cannot be had, or is not accepted.
    pub(super) async fn login(&self) -> Result<Grant, StoreError> {
        let resource = self.config.resource.trim_end_matches('/');
        let scope = format!("{resource}/.default");
        match &self.config.auth {
            AzureAuth::ManagedIdentity { address, client_id } => {
                let url = format!("{}/metadata/identity/oauth2/token", address.trim_end_matches('/'));
                let call = Call::get_at(&url, "ask the metadata service for a token").header("metadata", "true");
                let call = call.query("api-version", "2018-02-01").query("resource", resource);
                let call = match client_id {
                    Some(client_id) => call.query("client_id", client_id),
                    None => call,
                };
                let answer = self.remote.send(&call.of_metadata_server()).await?;
                token(&answer, "assign the managed identity to this machine")
            }
            AzureAuth::ClientSecret { login_address, tenant_id, client_id, client_secret } => {
                let secret = self.local.text(client_secret).await?;
                let fields = [
                    ("grant_type", "client_credentials"),
                    ("client_id", client_id),
                    ("client_secret", &secret),
                    ("scope", &scope),
                ];
                self.ask_entra(login_address, tenant_id, &fields).await
            }
            AzureAuth::Federation { login_address, tenant_id, client_id, assertion } => {
                let assertion = self.local.text(assertion).await?;
                let fields = [
                    ("grant_type", "client_credentials"),
                    ("client_id", client_id),
                    ("client_assertion_type", ASSERTION_TYPE),
                    ("client_assertion", &assertion),
                    ("scope", &scope),
                ];
                self.ask_entra(login_address, tenant_id, &fields).await
            }
        }
    }

    async fn ask_entra(&self, address: &str, tenant: &str, fields: &[(&str, &str)]) -> Result<Grant, StoreError> {
        let url = format!("{}/{tenant}/oauth2/v2.0/token", address.trim_end_matches('/'));
        let answer = self.remote.send(&Call::post_to(&url, "log in at Entra").form(fields)).await?;
        token(&answer, "compare tenant, client id and secret (or federated credential) with the app registration")
    }
}
