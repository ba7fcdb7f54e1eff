//! Every form of the credential really stands on the wire.

use serde_json::json;

use crate::running::Upstream;

// Name of the form and what stands between the quotes of the JSON text on the wire, as Python's libraries write it.
const FORMS: [(&str, &str); 26] = [
    ("raw", r##"Kw7/+=\"\\&9zQ??>-Tail"##),
    ("upper", r##"KW7/+=\"\\&9ZQ??>-TAIL"##),
    ("lower", r##"kw7/+=\"\\&9zq??>-tail"##),
    ("reversed", r##"liaT->??Qz9&\\\"=+/7wK"##),
    ("base64", r##"S3c3Lys9IlwmOXpRPz8+LVRhaWw="##),
    ("base64_nopad", r##"S3c3Lys9IlwmOXpRPz8+LVRhaWw"##),
    ("base64url", r##"S3c3Lys9IlwmOXpRPz8-LVRhaWw="##),
    ("base64url_nopad", r##"S3c3Lys9IlwmOXpRPz8-LVRhaWw"##),
    ("base64_shift1", r##"Okt3Ny8rPSJcJjl6UT8/Pi1UYWlsZW5k"##),
    ("base64_shift2", r##"azpLdzcvKz0iXCY5elE/Pz4tVGFpbGVuZA=="##),
    (
        "base64_mime",
        r##"Li4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uS3c3Lys9\r\nIlwmOXpRPz8+LVRhaWw="##,
    ),
    ("hex", r##"4b77372f2b3d225c26397a513f3f3e2d5461696c"##),
    ("hex_upper", r##"4B77372F2B3D225C26397A513F3F3E2D5461696C"##),
    ("percent", r##"Kw7%2F%2B%3D%22%5C%269zQ%3F%3F%3E-Tail"##),
    ("percent_lower", r##"Kw7%2f%2b%3d%22%5c%269zQ%3f%3f%3e-Tail"##),
    ("percent_all", r##"%4B%77%37%2F%2B%3D%22%5C%26%39%7A%51%3F%3F%3E%2D%54%61%69%6C"##),
    (
        "percent_double",
        r##"%254B%2577%2537%252F%252B%253D%2522%255C%2526%2539%257A%2551%253F%253F%253E%252D%2554%2561%2569%256C"##,
    ),
    (
        "html_decimal",
        r##"&#75;&#119;&#55;&#47;&#43;&#61;&#34;&#92;&#38;&#57;&#122;&#81;&#63;&#63;&#62;&#45;&#84;&#97;&#105;&#108;"##,
    ),
    (
        "html_hex",
        r##"&#x4b;&#x77;&#x37;&#x2f;&#x2b;&#x3d;&#x22;&#x5c;&#x26;&#x39;&#x7a;&#x51;&#x3f;&#x3f;&#x3e;&#x2d;&#x54;&#x61;&#x69;&#x6c;"##,
    ),
    ("quoted_printable", r##"Kw7/+=3D\"\\&9zQ??>-Tail"##),
    ("quoted_printable_all", r##"=4B=77=37=2F=2B=3D=22=5C=26=39=7A=51=3F=3F=3E=2D=54=61=69=6C"##),
    ("quoted_printable_folded", r##"Kw7/+=3D\"\\&9=\r\nzQ??>-Tail"##),
    ("basic", r##"c3ZjOkt3Ny8rPSJcJjl6UT8/Pi1UYWls"##),
    (
        "json_in_json",
        r##"{\"credential\":\"\\u004b\\u0077\\u0037\\u002f\\u002b\\u003d\\u0022\\u005c\\u0026\\u0039\\u007a\\u0051\\u003f\\u003f\\u003e\\u002d\\u0054\\u0061\\u0069\\u006c\"}"##,
    ),
    (
        "json_unicode",
        r##"\u004b\u0077\u0037\u002f\u002b\u003d\u0022\u005c\u0026\u0039\u007a\u0051\u003f\u003f\u003e\u002d\u0054\u0061\u0069\u006c"##,
    ),
    ("json_unicode_partial", r##"K\u00777\u002f+\u003d\u0022\u005c&\u0039z\u0051?\u003f>\u002dT\u0061i\u006c"##),
];

#[tokio::test]
async fn every_form_stands_on_the_wire_in_text_and_in_structured_content() {
    let upstream = Upstream::start(&[]).await;
    for carrier in ["text", "structured_content", "meta", "error_message", "error_data", "embedded_resource"] {
        for (form, expected) in FORMS {
            let answer = upstream.tool("leak", json!({"carrier": carrier, "form": form})).await;
            let text = answer.text();
            assert_eq!(answer.status(), 200, "{carrier} {form} {text}");
            assert!(text.contains(&format!("received {expected} from you")), "{carrier} {form} {text}");
            assert_eq!(answer.message()["id"], 7);
        }
    }
}

#[tokio::test]
async fn every_form_stands_in_a_plain_body() {
    let upstream = Upstream::start(&[]).await;
    for (form, in_json) in FORMS {
        let is_escape = matches!(form, "json_unicode" | "json_unicode_partial");
        let expected: String =
            if is_escape { in_json.to_owned() } else { serde_json::from_str(&format!("\"{in_json}\"")).unwrap() };
        let answer = upstream.get(&format!("/plain/x?leak={form}")).await;
        assert_eq!(answer.text(), format!("received {expected} from you\n"));
    }
}

#[tokio::test]
async fn the_list_is_complete() {
    let upstream = Upstream::start(&[]).await;
    let answer = upstream.tool("leak", json!({"carrier": "text", "form": "unheard_of"})).await;
    let message = answer.message()["error"]["message"].as_str().unwrap().to_owned();
    for (form, _) in FORMS {
        assert!(message.contains(&format!("`{form}`")), "{form} {message}");
    }
    assert_eq!(message.matches('`').count() / 2, FORMS.len() + 2, "{message}");
}
