//! The challenge by which a vault says whose tokens it takes.

use reqwest::Url;

/// Checks that a `Bearer` challenge names this resource, and that the vault's host belongs to it.
///
/// # Errors
/// What does not fit.
pub(super) fn check(header: &str, resource: &str, vault: &str) -> Result<(), String> {
    let parameters = header.strip_prefix("Bearer").ok_or("the challenge is not for a bearer token")?;
    let parameter = |name: &str| {
        parameters.split(',').find_map(|part| {
            let (key, value) = part.trim().split_once('=')?;
            (key.trim() == name).then(|| value.trim().trim_matches('"').to_owned())
        })
    };
    let scope = || parameter("scope").map(|scope| scope.trim_end_matches("/.default").to_owned());
    let named = parameter("resource").or_else(scope).ok_or("the challenge names no resource")?;
    if named.trim_end_matches('/') != resource.trim_end_matches('/') {
        return Err("the challenge names another resource than the one in configuration".to_owned());
    }
    let host = |url: &str| Url::parse(url).ok()?.host_str().map(str::to_owned);
    let (Some(vault), Some(resource)) = (host(vault), host(resource)) else {
        return Err("the resource is not an address".to_owned());
    };
    if vault == resource || vault.ends_with(&format!(".{resource}")) {
        return Ok(());
    }
    Err(format!("the host of the vault is not below `{resource}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOURCE: &str = "https://vault.azure.net";

    #[test]
    fn only_the_vaults_own_resource_passes() {
        let challenge = |parameters: &str| format!("Bearer authorization=\"https://login.example/t\", {parameters}");
        let good = challenge("resource=\"https://vault.azure.net\"");
        assert_eq!(check(&good, RESOURCE, "https://contoso.vault.azure.net"), Ok(()));
        assert_eq!(
            check(&challenge("scope=\"https://vault.azure.net/.default\""), RESOURCE, "https://a.vault.azure.net"),
            Ok(())
        );
        let bad = [
            (good.as_str(), "https://contoso.vault.azure.net.evil.example"),
            (good.as_str(), "https://evilvault.azure.net"),
            ("Bearer resource=\"https://management.azure.com\"", "https://contoso.vault.azure.net"),
            ("Bearer authorization=\"x\"", "https://contoso.vault.azure.net"),
            ("Basic realm=\"x\"", "https://contoso.vault.azure.net"),
        ];
        for (header, vault) in bad {
            assert!(check(header, RESOURCE, vault).is_err(), "{header} {vault}");
        }
    }
}
