BEGIN TRANSACTION;
CREATE TABLE events (
        seq      INTEGER PRIMARY KEY,  -- 1, 2, 3, ...
        kind     TEXT NOT NULL,        -- asked, labeled, relabeled, ignored, undone
        sample   INTEGER NOT NULL,     -- data set index
        id       TEXT,                 -- the user's name of the sample
        value    TEXT,                 -- the target, as JSON
        who      TEXT,                 -- who gave it; 'dataset' where the data set holds it
        at       TEXT NOT NULL,        -- when, UTC
        round    INTEGER,              -- 0 is the initial set
        strategy TEXT,                 -- what asked for it
        seed     INTEGER,
        score    REAL,                 -- the strategy's score when it was asked for
        rank     INTEGER,              -- place in the query, 0 first
        digest   TEXT NOT NULL         -- sha256 over the row before and this one
    );
INSERT INTO "events" VALUES(1,'asked',7,'scan-007',NULL,NULL,'2026-11-28T13:50:06.550796+00:00',0,'initial',0,NULL,0,'ebf095fe803d650ebd5f7bf2b4d4775dec4f6dcb4d25830a0d80fcf1c783bc43');
INSERT INTO "events" VALUES(2,'asked',5,'scan-005',NULL,NULL,'2026-11-28T13:50:06.550796+00:00',0,'initial',0,NULL,1,'593981f0fc6fdfddb6d58a705cd377d69237ccc87b6a9378a0dab148fd1ec8cc');
INSERT INTO "events" VALUES(3,'asked',3,'scan-003',NULL,NULL,'2026-11-28T13:50:06.550796+00:00',0,'initial',0,NULL,2,'7751a1d32118cdfd9add09fb94649a8e3cba1e94f53786c2bab46eaf7b0acd88');
INSERT INTO "events" VALUES(4,'labeled',7,'scan-007','2','Ada','2026-11-28T13:50:06.557588+00:00',0,NULL,NULL,NULL,NULL,'84bb740ee77de22c231f4e1ad075bf015d3aa96d9a375efc53bd946f8e81c3a0');
INSERT INTO "events" VALUES(5,'labeled',5,'scan-005','0','Ada','2026-11-28T13:50:06.557588+00:00',0,NULL,NULL,NULL,NULL,'d1227646a1952ca06ed5b27f29953cfc53cf4812243004f038081f6db64ad03b');
INSERT INTO "events" VALUES(6,'ignored',3,'scan-003',NULL,'Ada','2026-11-28T13:50:06.559846+00:00',NULL,NULL,NULL,NULL,NULL,'f4f644d2845eeedde74d88d55dea64f10a74cbc95262f7540c78d47192bc35ac');
INSERT INTO "events" VALUES(7,'asked',1,'scan-001',NULL,NULL,'2026-11-28T13:50:06.562026+00:00',1,'Margin()',0,0.75,0,'6f704efa0135dc62d67d45a2a6b66f9c05495d24fecee373a27643d9688935d8');
INSERT INTO "events" VALUES(8,'asked',4,'scan-004',NULL,NULL,'2026-11-28T13:50:06.562026+00:00',1,'Margin()',0,0.5,1,'0f6ae7aa4745a85060f64b5d2c352c785109187ce7bd35249ac68c9f447c5443');
INSERT INTO "events" VALUES(9,'relabeled',5,'scan-005','1','Ben','2026-11-28T13:50:06.566552+00:00',0,NULL,NULL,NULL,NULL,'7881af64b1123476b3a96a31b8fb260d9ae2944b964ae22582a3974b62e406f9');
INSERT INTO "events" VALUES(10,'labeled',4,'scan-004','1','Ada','2026-11-28T13:50:06.569079+00:00',1,NULL,NULL,NULL,NULL,'ed480f1de8905ab35a49b8277d8f5d448078496e9c21251c768a9eb5cb56591e');
INSERT INTO "events" VALUES(11,'labeled',9,'scan-009','2','Ada','2026-11-28T13:50:06.571492+00:00',1,NULL,NULL,NULL,NULL,'9c6d0802392204938f299d57dd22c529553d7ac0f60e52658cdc11860114aba2');
INSERT INTO "events" VALUES(12,'undone',9,'scan-009',NULL,'Ben','2026-11-28T13:50:06.573577+00:00',NULL,NULL,NULL,NULL,NULL,'34d3675812751b2cba18626a998d701b6c5c4ba13ea77f9829e57a99f83ef5bf');
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO "meta" VALUES('schema_version','1');
INSERT INTO "meta" VALUES('run_id','"b5cd19a859b1"');
INSERT INTO "meta" VALUES('size','12');
INSERT INTO "meta" VALUES('seed','0');
INSERT INTO "meta" VALUES('initial','[7, 5, 3]');
INSERT INTO "meta" VALUES('initial_balanced','false');
INSERT INTO "meta" VALUES('labeled_part','null');
INSERT INTO "meta" VALUES('fingerprint','"ids:765eda5c6eedd157b46d9219b2be0628"');
INSERT INTO "meta" VALUES('strategy','"Margin(), candidates=None"');
CREATE TABLE owner (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        token TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT, job TEXT,
        since TEXT NOT NULL
    );
CREATE TABLE rounds (round INTEGER PRIMARY KEY, at TEXT NOT NULL, row TEXT NOT NULL);
INSERT INTO "rounds" VALUES(0,'2026-11-28T13:50:06.562026+00:00','{"round": 0, "labeled": 2, "asked": 2, "train_s": 1.5, "label_entropy": null}');
CREATE INDEX events_by_name ON events (coalesce(id, sample), seq);
CREATE VIEW state AS
        SELECT e.sample, e.id,
               CASE e.kind WHEN 'relabeled' THEN 'labeled' ELSE e.kind END AS status,
               e.value, e.who, e.at, e.round,
               coalesce(a.strategy, e.strategy) AS strategy, coalesce(a.score, e.score) AS score,
               coalesce(a.rank, e.rank) AS rank
        FROM events AS e
        JOIN (SELECT max(seq) AS seq FROM events GROUP BY coalesce(id, sample)) AS last ON e.seq = last.seq
        LEFT JOIN events AS a ON a.seq = (
            SELECT max(seq) FROM events  -- back in the pool or ignored, it is no longer an answer
            WHERE coalesce(id, sample) = coalesce(e.id, e.sample) AND seq <= e.seq
                  AND kind IN ('asked', 'undone', 'ignored')
        ) AND a.kind = 'asked'
        WHERE e.kind <> 'undone'
        ORDER BY e.round, coalesce(a.rank, e.rank), e.seq;
COMMIT;
