-- +goose Up
CREATE TABLE applications (
  id         uuid PRIMARY KEY,
  offer_id   uuid NOT NULL,
  company_id uuid NOT NULL, -- of the offer, as it was at that time
  student_id uuid NOT NULL,
  motivation text NOT NULL,
  status     text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'accepted', 'rejected')),
  created    timestamptz NOT NULL DEFAULT now(),
  UNIQUE (student_id, offer_id)
);
CREATE INDEX applications_company ON applications (company_id, created DESC, id DESC);
CREATE INDEX applications_student ON applications (student_id, created DESC, id DESC);

-- +goose Down
DROP TABLE applications;
