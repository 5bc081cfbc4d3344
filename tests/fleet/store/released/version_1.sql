BEGIN TRANSACTION;
CREATE TABLE desired (
                device TEXT PRIMARY KEY REFERENCES devices (name),
                version INTEGER NOT NULL,
                release TEXT,
                rollout TEXT REFERENCES rollouts (id),
                attempt INTEGER NOT NULL,
                compare INTEGER NOT NULL
            );
INSERT INTO "desired" VALUES('a',7,'toy@1','rollout-1',2,1);
CREATE TABLE devices (
                name TEXT PRIMARY KEY,
                target TEXT,
                release TEXT,
                previous TEXT,
                online INTEGER NOT NULL,
                boot TEXT NOT NULL,
                sequence INTEGER NOT NULL,
                past_boots TEXT NOT NULL,
                desired_version INTEGER NOT NULL,
                agent_version TEXT NOT NULL,
                runtimes TEXT NOT NULL,
                last_seen REAL NOT NULL
            );
INSERT INTO "devices" VALUES('a','pi','toy@1',NULL,1,'b2',3,'["b0", "b1"]',7,'1','["onnxruntime"]',5.0);
CREATE TABLE executions (
                rollout TEXT NOT NULL REFERENCES rollouts (id),
                device TEXT NOT NULL,
                state TEXT NOT NULL,
                record TEXT NOT NULL,
                PRIMARY KEY (rollout, device)
            ) WITHOUT ROWID
            ;
INSERT INTO "executions" VALUES('rollout-1','a','QUEUED','{"assigned":false,"attempt":1,"device":"a","previous":null,"reason":"","stage":0,"started_at":null,"state":"QUEUED","step":"","target":"pi","updated_at":null,"version":1}');
CREATE TABLE migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL);
INSERT INTO "migrations" VALUES(1,'devices and rollouts');
CREATE TABLE rollouts (
                number INTEGER PRIMARY KEY,
                id TEXT NOT NULL UNIQUE,
                release TEXT NOT NULL,
                state TEXT NOT NULL,
                is_over INTEGER NOT NULL,
                record TEXT NOT NULL
            );
INSERT INTO "rollouts" VALUES(1,'rollout-1','toy@1','READY',0,'{"created_at":1.0,"gate_since":null,"id":"rollout-1","plan":{"abort_rules":[{"kind":"ALL","minimum_executed":1,"share":0.5}],"denominator":"total","gate":{"alpha":0.05,"floor":null,"maximum_accuracy_drop":0.1,"maximum_disagreement":null,"minimum_samples":100},"gate_timeout_s":3600,"in_progress_timeout_s":600,"max_attempts":2,"needs_approval":false,"stage_deadline_s":3600,"stages":[{"name":"canary","share":0.25},{"name":"fleet","share":1.0}],"step_timeout_s":120},"reason":"","release":"toy@1","stage":0,"stage_deadline_at":null,"stage_started_at":null,"stages":["SCHEDULED","SCHEDULED"],"state":"READY"}');
CREATE INDEX rollouts_in_progress ON rollouts (number) WHERE NOT is_over;
COMMIT;
