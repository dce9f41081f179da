-- +goose Up
CREATE TABLE users (
  id       uuid PRIMARY KEY,
  email    text NOT NULL,
  name     text NOT NULL,
  role     text NOT NULL CHECK (role IN ('student', 'company', 'admin')),
  password text NOT NULL, -- argon2id, as a PHC string
  created  timestamptz NOT NULL DEFAULT now(),
  deleted  timestamptz
);
CREATE UNIQUE INDEX users_email ON users (lower(email));

-- Wrong passwords in a row, by address, whether or not it has an account.
CREATE TABLE login_failures (
  email text PRIMARY KEY,
  count int NOT NULL,
  last  timestamptz NOT NULL
);

-- +goose Down
DROP TABLE login_failures;
DROP TABLE users;
