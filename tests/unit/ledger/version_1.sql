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
INSERT INTO "events" VALUES(1,'asked',7,NULL,NULL,NULL,'2026-11-28T13:50:06.515076+00:00',0,'initial',0,NULL,0,'548749a9a38eae3e342ba012bbe79e4251f3d076d570d10a13b6b353271be051');
INSERT INTO "events" VALUES(2,'asked',5,NULL,NULL,NULL,'2026-11-28T13:50:06.515076+00:00',0,'initial',0,NULL,1,'07300a2ca783e7b67c8dfe1111ead6c832d6077bd90d18eec1864686f6fe4f60');
INSERT INTO "events" VALUES(3,'asked',3,NULL,NULL,NULL,'2026-11-28T13:50:06.515076+00:00',0,'initial',0,NULL,2,'c59859017ef1de53d0bbb8978d894e9cc135ec8db788d3c1bdf6065d571406af');
INSERT INTO "events" VALUES(4,'labeled',7,NULL,'2','Ada','2026-11-28T13:50:06.524206+00:00',0,NULL,NULL,NULL,NULL,'6fc129311b58ba66b8f7059afd00fe4746d821239915b055045b06163fb68edc');
INSERT INTO "events" VALUES(5,'labeled',5,NULL,'0','Ada','2026-11-28T13:50:06.524206+00:00',0,NULL,NULL,NULL,NULL,'14862bff7d963971a84599df38a4f7603d767db938cea39e0892e7e5d220a74e');
INSERT INTO "events" VALUES(6,'ignored',3,NULL,NULL,'Ada','2026-11-28T13:50:06.526553+00:00',NULL,NULL,NULL,NULL,NULL,'089f2df46ef312f53ed606faf123d249f2c8ab118ada53cc270bcfb70d803b44');
INSERT INTO "events" VALUES(7,'asked',1,NULL,NULL,NULL,'2026-11-28T13:50:06.528823+00:00',1,'Margin()',0,0.75,0,'04ad23af1c8f464d2c2c9605dbb30ddd610d9294bbc09219fc94fef73969cec9');
INSERT INTO "events" VALUES(8,'asked',4,NULL,NULL,NULL,'2026-11-28T13:50:06.528823+00:00',1,'Margin()',0,0.5,1,'fc4d0b12c285e8567c13003440b820535bffcfb6cf52b1cb91b4b969bbb9950f');
INSERT INTO "events" VALUES(9,'relabeled',5,NULL,'1','Ben','2026-11-28T13:50:06.534239+00:00',0,NULL,NULL,NULL,NULL,'9a882f3199b7c40a20d31ddd008738b4e66222ae8ec8c007cb4b9005625127d7');
INSERT INTO "events" VALUES(10,'labeled',4,NULL,'1','Ada','2026-11-28T13:50:06.536751+00:00',1,NULL,NULL,NULL,NULL,'018241fcccdb58de87ddaf37909d2dbce969f379ddb2ea3955327772de1c5617');
INSERT INTO "events" VALUES(11,'labeled',9,NULL,'2','Ada','2026-11-28T13:50:06.539119+00:00',1,NULL,NULL,NULL,NULL,'2616063038d57244fe33cb92d0686b266b9c0bed800b233832dddcb3949fc1db');
INSERT INTO "events" VALUES(12,'undone',9,NULL,NULL,'Ben','2026-11-28T13:50:06.541308+00:00',NULL,NULL,NULL,NULL,NULL,'32992accb0f9dc101c80821ebcde39f014f5fec0a7af5c29c21a600c8a7354ab');
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO "meta" VALUES('schema_version','1');
INSERT INTO "meta" VALUES('run_id','"236bbf50fa21"');
INSERT INTO "meta" VALUES('size','12');
INSERT INTO "meta" VALUES('seed','0');
INSERT INTO "meta" VALUES('initial','[7, 5, 3]');
INSERT INTO "meta" VALUES('initial_balanced','false');
INSERT INTO "meta" VALUES('labeled_part','null');
INSERT INTO "meta" VALUES('fingerprint','"items:71776507fe8515fe5720bc4570e723f1"');
INSERT INTO "meta" VALUES('strategy','"Margin(), candidates=None"');
CREATE TABLE owner (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        token TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT, job TEXT,
        since TEXT NOT NULL
    );
CREATE TABLE rounds (round INTEGER PRIMARY KEY, at TEXT NOT NULL, row TEXT NOT NULL);
INSERT INTO "rounds" VALUES(0,'2026-11-28T13:50:06.528823+00:00','{"round": 0, "labeled": 2, "asked": 2, "train_s": 1.5, "label_entropy": null}');
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
