-- +goose Up
CREATE TABLE offers (
  id              uuid PRIMARY KEY,
  company_id      uuid NOT NULL,
  idempotency_key uuid NOT NULL,
  title           text NOT NULL,
  description     text NOT NULL,
  location        text NOT NULL,
  weeks           int NOT NULL,
  places          int NOT NULL,
  version         bigint NOT NULL DEFAULT 1,
  deleted         boolean NOT NULL DEFAULT false,
  created         timestamptz NOT NULL DEFAULT now(),
  words           tsvector GENERATED ALWAYS AS (to_tsvector('simple', title || ' ' || description)) STORED,
  UNIQUE (company_id, idempotency_key)
);
CREATE INDEX offers_newest ON offers (created DESC, id DESC) WHERE NOT deleted;
CREATE INDEX offers_words ON offers USING gin (words);

-- +goose Down
DROP TABLE offers;
