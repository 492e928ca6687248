-- People. `email` is the address as its owner wrote it, and mails go there; `email_key` is its normal form, by which it is
-- found and unique. `password_time` is when the password was set; renewing its hash does not count. `roles` is a set of bits
-- (member 1, moderator 2, operator 4, admin 8): an account is always read whole, and a filter by role is one `&`. `version`
-- counts changes; it is the etag and the version of the account's events.
-- Everything that is written about a person is written under the lock of this row.
CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL,
    email_key text NOT NULL CONSTRAINT users_email_key_key UNIQUE,
    email_verify_time timestamptz,
    password_hash text NOT NULL,
    password_time timestamptz NOT NULL,
    display_name text NOT NULL,
    biography text NOT NULL,
    roles bigint NOT NULL CONSTRAINT users_roles_check CHECK (roles BETWEEN 1 AND 15),
    tier text NOT NULL CONSTRAINT users_tier_check CHECK (tier IN ('free', 'premium', 'enterprise')),
    suspend_time timestamptz,
    suspend_reason text,
    version bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT users_suspend_check CHECK ((suspend_time IS NULL) = (suspend_reason IS NULL))
);
CREATE INDEX users_create_time_idx ON users (create_time, id);

CREATE TABLE user_settings (
    user_id uuid PRIMARY KEY CONSTRAINT user_settings_user_id_fkey REFERENCES users (id) ON DELETE CASCADE,
    locale text NOT NULL,
    time_zone text NOT NULL,
    email_notifications boolean NOT NULL,
    version bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);

-- A session is one log-in of one client: today always the first-party client `guildhall`, whose tokens carry whatever the
-- account may do. A client of the OpenID Provider will add the grant that bounds its sessions.
-- `expire_time` moves with use, up to the absolute life; `end_time` is set once, when it was ended before.
CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT sessions_user_id_fkey REFERENCES users (id) ON DELETE CASCADE,
    client_id text NOT NULL,
    user_agent text NOT NULL,
    create_time timestamptz NOT NULL,
    use_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    end_time timestamptz
);
CREATE INDEX sessions_user_id_idx ON sessions (user_id, use_time, id);
CREATE INDEX sessions_expire_time_idx ON sessions (expire_time);

-- Refresh tokens, by SHA-256. A used one is kept as long as its session, so that its reuse is noticed.
CREATE TABLE refresh_tokens (
    hash bytea PRIMARY KEY,
    session_id uuid NOT NULL CONSTRAINT refresh_tokens_session_id_fkey REFERENCES sessions (id) ON DELETE CASCADE,
    create_time timestamptz NOT NULL,
    use_time timestamptz
);
CREATE INDEX refresh_tokens_session_id_idx ON refresh_tokens (session_id);

-- Mailed codes that nobody has used yet, by SHA-256.
CREATE TABLE codes (
    hash bytea PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT codes_user_id_fkey REFERENCES users (id) ON DELETE CASCADE,
    purpose text NOT NULL CONSTRAINT codes_purpose_check CHECK (purpose IN ('verify_email', 'reset_password')),
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL
);
CREATE INDEX codes_user_id_idx ON codes (user_id, purpose);
CREATE INDEX codes_expire_time_idx ON codes (expire_time);

-- Mails to be sent. A row names an address, not an account, and carries no code: that is made when the mail is sent. So the
-- same row is written whether or not the address has an account, and nothing secret lies here in clear.
CREATE TABLE mails (
    id uuid PRIMARY KEY,
    kind text NOT NULL CONSTRAINT mails_kind_check CHECK (kind IN ('verify_email', 'reset_password', 'address_taken')),
    email_key text NOT NULL,
    attempts bigint NOT NULL,
    create_time timestamptz NOT NULL,
    next_time timestamptz NOT NULL
);
CREATE INDEX mails_next_time_idx ON mails (next_time, id);

-- Keys that sign access tokens. `sealed` is the PKCS#8 private key under AES-256-GCM, bound to `id`. `sign_time` is when the key
-- starts to sign; it signs until the next one starts.
CREATE TABLE signing_keys (
    id uuid PRIMARY KEY,
    algorithm text NOT NULL CONSTRAINT signing_keys_algorithm_check CHECK (algorithm IN ('RS256')),
    sealed bytea NOT NULL,
    create_time timestamptz NOT NULL,
    sign_time timestamptz NOT NULL CONSTRAINT signing_keys_sign_time_key UNIQUE
);
