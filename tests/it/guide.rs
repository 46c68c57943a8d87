//! The statements of the platform's public guide. Each test quotes the sentences that it checks.

use serde_json::json;

use support::both;

const NOT_MOBILE: &str = "Sorry, this phone number cannot be used. Please use a valid mobile number.";

// "The minimum required fields are externalCustomerId and data.email."
both!(only_external_customer_id_and_email_are_required, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let created = app.created(&operator, "user-1", json!({ "email": "ada@example.com" })).await;
    assert_eq!(created["outcome"], "CREATED");
    assert_eq!(created["matchedBy"], json!([]));
    assert_eq!(created["unappliedFields"], json!([]));
    assert_eq!(created["warnings"], json!([]));
    assert_eq!(created["customer"]["externalCustomerId"], "user-1");
    assert_eq!(created["customer"]["email"], "ada@example.com");
    assert_eq!(created["customer"]["version"], 1);
    for (missing, input) in [
        ("externalCustomerId", json!({ "data": { "email": "b@example.com" } })),
        ("email", json!({ "externalCustomerId": "user-2", "data": {} })),
    ] {
        let query = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { outcome } }";
        let answer = app.graphql(&operator, query, json!({ "input": input })).await;
        assert_eq!(answer.codes(), ["BAD_REQUEST"], "without {missing}");
    }
});

// "Providing complete customer data (name, phone, address) upfront reduces the number of prompts shown."
both!(a_complete_customer_has_no_missing_fields, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let minimal = app.created(&operator, "user-1", json!({ "email": "a@example.com" })).await;
    assert_eq!(minimal["customer"]["missingFields"], json!(["FIRST_NAME", "LAST_NAME", "PHONE", "ADDRESS"]));
    let data = json!({
        "email": "ada@example.com", "phone": "+14155552671", "firstName": "Ada", "lastName": "Lovelace",
        "address": {
            "line1": "1 Main St", "city": "Springfield", "region": "OR", "postalCode": "97403", "country": "us",
        },
    });
    let complete = app.created(&operator, "user-2", data).await;
    assert_eq!(complete["customer"]["missingFields"], json!([]));
    let address = json!({
        "line1": "1 Main St", "line2": null, "city": "Springfield", "region": "OR", "postalCode": "97403",
        "country": "US",
    });
    assert_eq!(complete["customer"]["address"], address);
});

// "If a match is found, the existing customer is automatically connected to your operator rather than creating a
// duplicate record." "A record with the same email address or phone number."
both!(create_connects_a_known_person_by_email_or_phone, Sandbox, async |app| {
    let first = app.operator("First").await;
    let data = json!({ "email": "ada@example.com", "phone": "+14155552671" });
    let known = app.created(&first, "user-1", data).await["customer"]["id"].clone();
    for (name, data, matched_by) in [
        ("by email", json!({ "email": "Ada@Example.com" }), json!(["EMAIL"])),
        ("by phone", json!({ "email": "other@example.com", "phone": "(415) 555-2671" }), json!(["PHONE"])),
        ("by both", json!({ "email": "ada@example.com", "phone": "+1 415 555 2671" }), json!(["EMAIL", "PHONE"])),
    ] {
        let operator = app.operator(name).await;
        let connected = app.created(&operator, "their-own-id", data).await;
        assert_eq!(connected["outcome"], "CONNECTED", "{name}");
        assert_eq!(connected["matchedBy"], matched_by, "{name}");
        assert_eq!(connected["customer"]["id"], known, "{name}");
        assert_eq!(connected["customer"]["externalCustomerId"], "their-own-id", "{name}");
        assert_eq!(connected["customer"]["email"], "ada@example.com", "{name}");
    }
    assert_eq!(app.count_rows("customer").await, 1);
});

// "A single customer can be linked to multiple operators while maintaining one unified profile."
both!(operators_share_one_profile, Sandbox, async |app| {
    let (first, second) = (app.operator("First").await, app.operator("Second").await);
    app.created(&first, "f-1", json!({ "email": "ada@example.com", "firstName": "Ada" })).await;
    app.created(&second, "s-1", json!({ "email": "ada@example.com", "lastName": "Lovelace" })).await;
    app.updated(&second, json!({ "externalCustomerId": "s-1" }), json!({ "phone": "+14155552671" })).await;
    let mut seen_by_first = app.customer(&first, json!({ "externalCustomerId": "f-1" })).await;
    let mut seen_by_second = app.customer(&second, json!({ "externalCustomerId": "s-1" })).await;
    assert_eq!(seen_by_first["externalCustomerId"].take(), "f-1");
    assert_eq!(seen_by_second["externalCustomerId"].take(), "s-1");
    assert_eq!(seen_by_first, seen_by_second);
    assert_eq!(seen_by_first["firstName"], "Ada");
    assert_eq!(seen_by_first["lastName"], "Lovelace");
    assert_eq!(seen_by_first["phone"], "+14155552671");
});

// "The externalCustomerId you provide must be unique within your integration. If you attempt to create a customer
// with an externalCustomerId that is already in use by your operator, the request will be rejected."
both!(an_external_id_is_unique_within_an_operator, Sandbox, async |app| {
    let (first, second) = (app.operator("First").await, app.operator("Second").await);
    app.created(&first, "user-1", json!({ "email": "ada@example.com" })).await;
    let answer = app.create(&first, "user-1", json!({ "email": "grace@example.com" })).await;
    let expected = [("EXTERNAL_CUSTOMER_ID_TAKEN", "input.externalCustomerId")];
    answer.assert_rejected("createCustomer", &expected);
    // Another operator may use the same id.
    app.created(&second, "user-1", json!({ "email": "grace@example.com" })).await;
});

// "No two customers can use the same email address. You will receive an error if you attempt to create a customer with
// an existing email address." Here, "existing" means that one of the operator's own customers has the email.
both!(an_email_of_the_callers_customers_is_rejected, Sandbox, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "user-1", json!({ "email": "ada@example.com" })).await;
    let answer = app.create(&operator, "user-2", json!({ "email": "ADA@example.com" })).await;
    answer.assert_rejected("createCustomer", &[("EMAIL_TAKEN", "input.data.email")]);

    app.created(&operator, "user-2", json!({ "email": "grace@example.com" })).await;
    let customer = json!({ "externalCustomerId": "user-2" });
    let update = app.update(&operator, customer, json!({ "email": "ada@example.com" })).await;
    update.assert_rejected("updateCustomer", &[("EMAIL_TAKEN", "input.data.email")]);
});

// "Restrictions are only applied in the production environment. However, certain gateways will not accept +suffix
// emails in any environment."
both!(sandbox_accepts_restricted_values_with_a_warning, Sandbox, async |app| {
    let operator = app.operator("A").await;
    for (number, (data, code, path)) in [
        (json!({ "email": "a@mailinator.com" }), "DISPOSABLE_EMAIL", "email"),
        (json!({ "email": "a@sub.mailinator.com" }), "DISPOSABLE_EMAIL", "email"),
        (json!({ "email": "user+test@example.com" }), "PLUS_SUFFIX_EMAIL", "email"),
        (json!({ "email": "b@example.com", "phone": "+15551234567" }), "PHONE_NOT_MOBILE", "phone"),
        (json!({ "email": "c@example.com", "phone": "+442079460018" }), "PHONE_NOT_MOBILE", "phone"),
        (json!({ "email": "d@example.com", "phone": "+18002345678" }), "PHONE_NOT_MOBILE", "phone"),
    ]
    .into_iter()
    .enumerate()
    {
        let created = app.created(&operator, &format!("user-{number}"), data.clone()).await;
        assert_eq!(created["warnings"][0]["code"], code, "{data}");
        assert_eq!(created["warnings"][0]["inputPath"], json!(["input", "data", path]), "{data}");
        assert_eq!(created["warnings"].as_array().unwrap().len(), 1, "{data}");
    }
    let customer = json!({ "externalCustomerId": "user-3" });
    let updated = app.updated(&operator, customer, json!({ "email": "user+b@example.com" })).await;
    let message = updated["warnings"][0]["message"].as_str().unwrap();
    assert!(message.contains("gateways reject such addresses in every environment"), "{message}");
});

// "Phone numbers should be provided in international format with a leading + and country code (e.g. +15551234567).
// If a number is provided without a + prefix and contains at least 10 digits, it is assumed to be a US number and
// +1 is prepended automatically."
both!(a_phone_without_a_plus_is_a_us_number, Sandbox, async |app| {
    let operator = app.operator("A").await;
    for (number, (given, stored)) in [
        ("+15551234567", "+15551234567"),
        ("4155552671", "+14155552671"),
        ("(415) 555-2672", "+14155552672"),
        // The number already has the country code of the US.
        ("1 415 555 2673", "+14155552673"),
    ]
    .into_iter()
    .enumerate()
    {
        let data = json!({ "email": format!("{number}@example.com"), "phone": given });
        let created = app.created(&operator, &format!("user-{number}"), data).await;
        assert_eq!(created["customer"]["phone"], stored, "{given}");
    }
    for short in ["555123456", "911", "+1 555 1234"] {
        let data = json!({ "email": "short@example.com", "phone": short });
        let answer = app.create(&operator, "short", data).await;
        answer.assert_rejected("createCustomer", &[("INVALID_PHONE", "input.data.phone")]);
    }
});

// "The phone field is optional during customer creation." "If the customer record does not include a phone number,
// the SDK prompts the customer to enter one."
both!(an_omitted_phone_is_a_missing_field, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let created = app.created(&operator, "user-1", json!({ "email": "a@example.com", "phone": null })).await;
    assert_eq!(created["customer"]["phone"], json!(null));
    assert!(created["customer"]["missingFields"].as_array().unwrap().contains(&json!("PHONE")));
});

// "Customer data can be updated at any time via the Update Customer endpoint."
both!(customer_data_can_be_updated, Sandbox, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "user-1", json!({ "email": "a@example.com" })).await;
    let data = json!({ "email": "b@example.com", "phone": "+14155552671", "firstName": "Ada" });
    let updated = app.updated(&operator, json!({ "externalCustomerId": "user-1" }), data).await;
    assert_eq!(updated["customer"]["email"], "b@example.com");
    assert_eq!(updated["customer"]["phone"], "+14155552671");
    assert_eq!(updated["customer"]["firstName"], "Ada");
    assert_eq!(updated["customer"]["version"], 2);
});

// "Email addresses from known disposable or temporary email providers are not accepted. This includes services such
// as Mailinator, Guerrilla Mail, 10 Minute Mail, YOPmail, and similar providers. Attempts to use a disposable email
// domain will be rejected with a relevant message."
both!(disposable_emails_are_rejected_in_production, Production, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "known", json!({ "email": "known@example.com" })).await;
    for domain in [
        "mailinator.com",
        "guerrillamail.com",
        "10minutemail.com",
        "yopmail.com",
        "sub.mailinator.com",
        "a.b.yopmail.com",
        "Mailinator.COM",
    ] {
        let data = json!({ "email": format!("user@{domain}") });
        let expected = [("DISPOSABLE_EMAIL", "input.data.email")];
        let created = app.create(&operator, "user-1", data.clone()).await;
        created.assert_rejected("createCustomer", &expected);
        assert!(created.message().contains("Disposable email addresses are not accepted"));
        let updated = app.update(&operator, json!({ "externalCustomerId": "known" }), data).await;
        updated.assert_rejected("updateCustomer", &expected);
    }
});

// "Email addresses containing + characters in the local part (before the @) are not supported. For example,
// user+test@example.com will be rejected, while user@example.com is valid."
both!(plus_suffix_emails_are_rejected_in_production, Production, async |app| {
    let operator = app.operator("A").await;
    let data = json!({ "email": "user+test@example.com" });
    let expected = [("PLUS_SUFFIX_EMAIL", "input.data.email")];
    let created = app.create(&operator, "user-1", data.clone()).await;
    created.assert_rejected("createCustomer", &expected);
    assert!(created.message().contains("plus suffix are not supported"));
    let accepted = app.created(&operator, "user-1", json!({ "email": "user@example.com" })).await;
    assert_eq!(accepted["warnings"], json!([]));
    let updated = app.update(&operator, json!({ "externalCustomerId": "user-1" }), data).await;
    updated.assert_rejected("updateCustomer", &expected);
});

// "Phone numbers are validated to confirm they belong to a valid mobile device. Landlines, VOIP numbers, and other
// non-mobile numbers are rejected with the error …" "Phone number validation (mobile-only) also applies when updating
// a customer's phone number."
both!(phones_that_are_not_mobile_are_rejected_in_production, Production, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "known", json!({ "email": "known@example.com" })).await;
    let (landline, voip, toll_free) = ("+442079460018", "+445612345678", "+18002345678");
    let (premium, not_in_service) = ("+449098765432", "+15551234567");
    for phone in [landline, voip, toll_free, premium, not_in_service] {
        let expected = [("PHONE_NOT_MOBILE", "input.data.phone")];
        let created = app.create(&operator, "user-1", json!({ "email": "a@example.com", "phone": phone })).await;
        created.assert_rejected("createCustomer", &expected);
        assert_eq!(created.message(), NOT_MOBILE);
        let updated = app.update(&operator, json!({ "externalCustomerId": "known" }), json!({ "phone": phone })).await;
        updated.assert_rejected("updateCustomer", &expected);
        assert_eq!(updated.message(), NOT_MOBILE);
    }
    for (number, mobile) in ["+14155552671", "+447400123456", "+2250123456789"].into_iter().enumerate() {
        let data = json!({ "email": format!("{number}@example.com"), "phone": mobile });
        let created = app.created(&operator, &format!("mobile-{number}"), data).await;
        assert_eq!(created["customer"]["phone"], mobile);
        assert_eq!(created["warnings"], json!([]));
    }
});
