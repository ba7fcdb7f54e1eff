//! The list of formats. To add one: a row here, and one in the table of tests.

use super::check::{self, Shape};

/// One documented format of a credential.
pub struct Rule {
    /// The stable name, as configuration writes it.
    pub name: &'static str,
    /// What it begins with; one of these.
    pub(super) prefixes: &'static [&'static str],
    /// What follows.
    pub(super) shape: Shape,
    /// What else must hold of the whole credential, the prefix included.
    pub(super) check: fn(prefix: &str, body: &[u8]) -> bool,
}

/// The rule of this name.
#[must_use]
pub fn rule(name: &str) -> Option<usize> {
    RULES.iter().position(|rule| rule.name == name)
}

const fn exactly(length: usize, alphabet: fn(u8) -> bool) -> Shape {
    Shape::Token { min: length, max: length, alphabet }
}

const fn from(min: usize, max: usize, alphabet: fn(u8) -> bool) -> Shape {
    Shape::Token { min, max, alphabet }
}

const fn row(
    name: &'static str,
    prefixes: &'static [&'static str],
    shape: Shape,
    check: fn(&str, &[u8]) -> bool,
) -> Rule {
    Rule { name, prefixes, shape, check }
}

/// All rules. At most 64: a set of them is one number.
pub static RULES: [Rule; 29] = [
    row("age_secret_key", &["AGE-SECRET-KEY-1"], exactly(58, check::is_upper_alphanumeric), check::is_random),
    row("anthropic_key", &["sk-ant-"], from(60, 256, check::is_url_safe), check::is_random),
    row("atlassian_token", &["ATATT3"], from(150, 300, check::is_url_safe_padded), check::is_random),
    row("aws_access_key_id", &["AKIA", "ASIA"], exactly(16, check::is_base32), check::is_random_id),
    row("databricks_token", &["dapi"], exactly(32, check::is_hex), check::is_random_hex),
    row("digitalocean_token", &["dop_v1_", "doo_v1_", "dor_v1_"], exactly(64, check::is_hex), check::is_random_hex),
    row("docker_token", &["dckr_pat_", "dckr_oat_"], from(27, 40, check::is_url_safe), check::is_random),
    row("github_fine_grained_token", &["github_pat_"], exactly(82, check::is_word), check::is_github_pat),
    row(
        "github_token",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
        exactly(36, check::is_base62),
        check::has_github_checksum,
    ),
    row(
        "gitlab_token",
        &["glpat-", "gldt-", "glrt-", "glptt-", "glft-", "glsoat-", "glcbt-", "glagent-", "gloas-"],
        from(20, 120, check::is_url_safe_dotted),
        check::is_random,
    ),
    row("google_api_key", &["AIza"], exactly(35, check::is_url_safe), check::is_random),
    row("google_oauth_secret", &["GOCSPX-"], exactly(28, check::is_url_safe), check::is_random),
    row("google_oauth_token", &["ya29."], from(40, 2048, check::is_url_safe_dotted), check::is_random),
    row("grafana_token", &["glsa_"], exactly(41, check::is_word), check::is_random),
    row("huggingface_token", &["hf_"], exactly(34, check::is_base62), check::is_random),
    row("jwt", &["eyJ"], from(40, usize::MAX, check::is_url_safe_dotted), check::is_jwt),
    row("linear_key", &["lin_api_"], exactly(40, check::is_base62), check::is_random),
    row("newrelic_key", &["NRAK-"], exactly(27, check::is_upper_alphanumeric), check::is_random_id),
    row("npm_token", &["npm_"], exactly(36, check::is_base62), check::is_random),
    row("openai_key", &["sk-"], from(48, 256, check::is_url_safe), check::is_openai),
    row("postman_key", &["PMAK-"], exactly(59, check::is_hex_dashed), check::is_random_hex),
    row("private_key", &["-----BEGIN "], Shape::Pem, check::always),
    row("pypi_token", &["pypi-AgE"], from(80, 512, check::is_url_safe), check::is_random),
    row("sendgrid_key", &["SG."], exactly(66, check::is_url_safe_dotted), check::is_sendgrid),
    row("shopify_token", &["shpat_", "shpca_", "shppa_", "shpss_"], exactly(32, check::is_hex), check::is_random_hex),
    row(
        "slack_token",
        &["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe-", "xoxe.", "xapp-"],
        from(24, 300, check::is_url_safe_dotted),
        check::is_slack,
    ),
    row("square_token", &["sq0atp-", "sq0csp-"], from(22, 43, check::is_url_safe), check::is_random),
    row("stripe_key", &["sk_live_", "rk_live_", "whsec_"], from(24, 256, check::is_base62), check::is_random),
    row("vault_token", &["hvs.", "hvb.", "hvr."], from(24, 300, check::is_url_safe), check::is_random),
];
