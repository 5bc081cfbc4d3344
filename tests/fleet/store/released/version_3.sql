BEGIN TRANSACTION;
CREATE TABLE admin_keys (sha256 TEXT PRIMARY KEY, name TEXT NOT NULL, created_at REAL NOT NULL);
INSERT INTO "admin_keys" VALUES('ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','first',1.0);
CREATE TABLE alerts (
                id TEXT PRIMARY KEY,
                release TEXT NOT NULL,
                raised_at REAL NOT NULL,
                updated_at REAL NOT NULL,
                record TEXT NOT NULL
            );
INSERT INTO "alerts" VALUES('drift-1','toy@1',2.0,3.0,'{"began":{},"devices":["a"],"features":["x"],"findings":[],"id":"drift-1","kind":"drift","raised_at":2.0,"reason":"","release":"toy@1","windows":2}');
CREATE TABLE audit (
                id INTEGER PRIMARY KEY,
                at REAL NOT NULL,
                actor TEXT NOT NULL,
                action TEXT NOT NULL,
                subject TEXT NOT NULL,
                detail TEXT NOT NULL
            );
INSERT INTO "audit" VALUES(1,1.0,'me','rollout.start','rollout-1','');
CREATE TABLE baselines (
                release TEXT NOT NULL,
                device TEXT NOT NULL,
                record TEXT NOT NULL,
                PRIMARY KEY (release, device)
            ) WITHOUT ROWID
            ;
INSERT INTO "baselines" VALUES('toy@1','a','{"x":[1,2]}');
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
CREATE TABLE drift_parts (
                release TEXT NOT NULL REFERENCES drift_states (release),
                kind TEXT NOT NULL,
                name TEXT NOT NULL,
                record TEXT NOT NULL,
                PRIMARY KEY (release, kind, name)
            ) WITHOUT ROWID
            ;
INSERT INTO "drift_parts" VALUES('toy@1','devices','a','{"at":1,"last":{"correct":95,"ended_at":1000.0,"features":{"output.confidence":{"counts":[20,80],"missing":0},"output.label":{"counts":[50,50],"missing":0},"x":{"counts":[50,50],"missing":0}},"index":0,"labelled":100,"latency":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"out_of_range":0,"paired":{"agreed":0,"both_right":0,"both_wrong":0,"disagreed":0,"only_new_right":0,"only_old_right":0},"release":"toy@1","samples":100,"started_at":999.0},"target":"pi"}');
INSERT INTO "drift_parts" VALUES('toy@1','devices','b','{"at":1,"last":{"correct":95,"ended_at":1000.0,"features":{"output.confidence":{"counts":[20,80],"missing":0},"output.label":{"counts":[50,50],"missing":0},"x":{"counts":[50,50],"missing":0}},"index":0,"labelled":100,"latency":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"out_of_range":0,"paired":{"agreed":0,"both_right":0,"both_wrong":0,"disagreed":0,"only_new_right":0,"only_old_right":0},"release":"toy@1","samples":100,"started_at":999.0},"target":"pi"}');
INSERT INTO "drift_parts" VALUES('toy@1','devices','c','{"at":1,"last":{"correct":95,"ended_at":1000.0,"features":{"output.confidence":{"counts":[20,80],"missing":0},"output.label":{"counts":[50,50],"missing":0},"x":{"counts":[50,50],"missing":0}},"index":0,"labelled":100,"latency":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"out_of_range":0,"paired":{"agreed":0,"both_right":0,"both_wrong":0,"disagreed":0,"only_new_right":0,"only_old_right":0},"release":"toy@1","samples":100,"started_at":999.0},"target":"pi"}');
INSERT INTO "drift_parts" VALUES('toy@1','slices','fleet','{"began":{},"findings":[],"last_began":null,"looked_at":0,"looks":2,"since":0,"streaks":{"x":1}}');
CREATE TABLE drift_states (release TEXT PRIMARY KEY, record TEXT NOT NULL);
INSERT INTO "drift_states" VALUES('toy@1','{"devices":{},"observed":3,"open":null,"raised":0,"release":"toy@1","slices":{}}');
CREATE TABLE executions (
                rollout TEXT NOT NULL REFERENCES rollouts (id),
                device TEXT NOT NULL,
                state TEXT NOT NULL,
                record TEXT NOT NULL,
                PRIMARY KEY (rollout, device)
            ) WITHOUT ROWID
            ;
INSERT INTO "executions" VALUES('rollout-1','a','QUEUED','{"assigned":false,"attempt":1,"device":"a","previous":null,"reason":"","stage":0,"started_at":null,"state":"QUEUED","step":"","target":"pi","updated_at":null,"version":1}');
CREATE TABLE gate_windows (
                rollout TEXT NOT NULL REFERENCES rollouts (id),
                stage INTEGER NOT NULL,
                windows INTEGER NOT NULL,
                record TEXT NOT NULL,
                PRIMARY KEY (rollout, stage)
            ) WITHOUT ROWID
            ;
INSERT INTO "gate_windows" VALUES('rollout-1',0,1,'{"correct":95,"ended_at":1000.0,"features":{"output.confidence":{"counts":[20,80],"missing":0},"output.label":{"counts":[50,50],"missing":0},"x":{"counts":[50,50],"missing":0}},"index":0,"labelled":100,"latency":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"out_of_range":0,"paired":{"agreed":0,"both_right":0,"both_wrong":0,"disagreed":0,"only_new_right":0,"only_old_right":0},"release":"toy@1","samples":100,"started_at":999.0}');
CREATE TABLE merged_windows (
                slice TEXT NOT NULL,
                release TEXT NOT NULL,
                period INTEGER NOT NULL,
                windows INTEGER NOT NULL,
                record TEXT NOT NULL,
                PRIMARY KEY (slice, release, period)
            ) WITHOUT ROWID
            ;
INSERT INTO "merged_windows" VALUES('fleet','toy@1',1,1,'{"correct":95,"ended_at":1000.0,"features":{"output.confidence":{"counts":[20,80],"missing":0},"output.label":{"counts":[50,50],"missing":0},"x":{"counts":[50,50],"missing":0}},"index":0,"labelled":100,"latency":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"out_of_range":0,"paired":{"agreed":0,"both_right":0,"both_wrong":0,"disagreed":0,"only_new_right":0,"only_old_right":0},"release":"toy@1","samples":100,"started_at":999.0}');
CREATE TABLE migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL);
INSERT INTO "migrations" VALUES(1,'devices and rollouts');
INSERT INTO "migrations" VALUES(2,'telemetry, drift and training runs');
INSERT INTO "migrations" VALUES(3,'admin keys and the append-only audit log');
CREATE TABLE pruned_windows (
                device TEXT NOT NULL,
                boot TEXT NOT NULL,
                sequence INTEGER NOT NULL,
                PRIMARY KEY (device, boot)
            ) WITHOUT ROWID
            ;
INSERT INTO "pruned_windows" VALUES('a','b',0);
CREATE TABLE rollouts (
                number INTEGER PRIMARY KEY,
                id TEXT NOT NULL UNIQUE,
                release TEXT NOT NULL,
                state TEXT NOT NULL,
                is_over INTEGER NOT NULL,
                record TEXT NOT NULL
            );
INSERT INTO "rollouts" VALUES(1,'rollout-1','toy@1','READY',0,'{"created_at":1.0,"gate_since":null,"id":"rollout-1","plan":{"abort_rules":[{"kind":"ALL","minimum_executed":1,"share":0.5}],"denominator":"total","gate":{"alpha":0.05,"floor":null,"maximum_accuracy_drop":0.1,"maximum_disagreement":null,"minimum_samples":100},"gate_timeout_s":3600,"in_progress_timeout_s":600,"max_attempts":2,"needs_approval":false,"stage_deadline_s":3600,"stages":[{"name":"canary","share":0.25},{"name":"fleet","share":1.0}],"step_timeout_s":120},"reason":"","release":"toy@1","stage":0,"stage_deadline_at":null,"stage_started_at":null,"stages":["SCHEDULED","SCHEDULED"],"state":"READY"}');
CREATE TABLE runs (
                id TEXT PRIMARY KEY,
                started_at REAL NOT NULL,
                ended_at REAL,
                state TEXT NOT NULL,
                trigger TEXT NOT NULL,
                parent TEXT NOT NULL,
                release TEXT,
                reason TEXT NOT NULL
            );
INSERT INTO "runs" VALUES('r',1.0,NULL,'running','manual','toy@1',NULL,'');
CREATE TABLE windows (
                id INTEGER PRIMARY KEY,
                device TEXT NOT NULL,
                boot TEXT NOT NULL,
                sequence INTEGER NOT NULL,
                release TEXT NOT NULL,
                received_at REAL NOT NULL,
                record TEXT NOT NULL,
                UNIQUE (device, boot, sequence)
            );
INSERT INTO "windows" VALUES(2,'a','b',1,'toy@1',9.0,'{"correct":95,"ended_at":1000.0,"features":{"output.confidence":{"counts":[20,80],"missing":0},"output.label":{"counts":[50,50],"missing":0},"x":{"counts":[50,50],"missing":0}},"index":0,"labelled":100,"latency":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"out_of_range":0,"paired":{"agreed":0,"both_right":0,"both_wrong":0,"disagreed":0,"only_new_right":0,"only_old_right":0},"release":"toy@1","samples":100,"started_at":999.0}');
INSERT INTO "windows" VALUES(3,'a','b',2,'toy@1',9.0,'{"correct":95,"ended_at":1000.0,"features":{"output.confidence":{"counts":[20,80],"missing":0},"output.label":{"counts":[50,50],"missing":0},"x":{"counts":[50,50],"missing":0}},"index":0,"labelled":100,"latency":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"out_of_range":0,"paired":{"agreed":0,"both_right":0,"both_wrong":0,"disagreed":0,"only_new_right":0,"only_old_right":0},"release":"toy@1","samples":100,"started_at":999.0}');
CREATE INDEX rollouts_in_progress ON rollouts (number) WHERE NOT is_over;
CREATE INDEX windows_by_time ON windows (received_at);
CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit
            BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
CREATE TRIGGER audit_keeps_words BEFORE UPDATE ON audit
            BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
COMMIT;
