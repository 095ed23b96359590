import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import io.debezium.storage.redis.RedisClient;
import io.debezium.storage.redis.RedisConnection;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.AbstractMap.SimpleEntry;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;

/**
 * `java DebeziumToRedis HOST:PORT WARM-UP.properties RECORDS ENGINE.properties`: the embedded engine, publishing to
 * Redis Streams. One engine runs until it has published so many records, so that the hot code is compiled; after it
 * another, until the process is killed.
 *
 * What Debezium Server's sink for Redis does, with the same client from Debezium's own storage module: one XADD a
 * record in the sink's "compact" format (the key's JSON is the field, the value's JSON its content), many in one
 * pipeline, and the records are marked as processed when the pipeline's replies are there.
 */
final class DebeziumToRedis {
    private static final int TIMEOUT_MILLIS = 10_000;

    public static void main(String[] arguments) throws Exception {
        RedisClient redis = new RedisConnection(arguments[0], 0, null, null, TIMEOUT_MILLIS, TIMEOUT_MILLIS, false)
                .getRedisClient("bench", false, 0, false, 0);
        run(arguments[1], redis, Long.parseLong(arguments[2]));
        run(arguments[3], redis, Long.MAX_VALUE);
        System.exit(1);
    }

    /** Run an engine until it has published `enough` records, or has failed. */
    private static void run(String file, RedisClient redis, long enough) throws Exception {
        Properties properties = new Properties();
        try (Reader reader = Files.newBufferedReader(Path.of(file))) {
            properties.load(reader);
        }
        AtomicLong published = new AtomicLong();
        CountDownLatch ended = new CountDownLatch(1);
        DebeziumEngine<ChangeEvent<String, String>> engine = DebeziumEngine.create(Json.class)
                .using(properties)
                .using((success, message, error) -> {
                    System.err.println("the engine ended: " + message + (error == null ? "" : " " + error));
                    ended.countDown();
                })
                .notifying((records, committer) -> {
                    publish(redis, records);
                    for (ChangeEvent<String, String> record : records) {
                        committer.markProcessed(record);
                    }
                    committer.markBatchFinished();
                    if (published.addAndGet(records.size()) >= enough) {
                        ended.countDown();
                    }
                })
                .build();
        Thread thread = new Thread(engine);
        thread.start();
        ended.await();
        engine.close();
        thread.join();
    }

    private static void publish(RedisClient redis, List<ChangeEvent<String, String>> records) {
        List<SimpleEntry<String, Map<String, String>>> entries = new ArrayList<>(records.size());
        for (ChangeEvent<String, String> record : records) {
            entries.add(new SimpleEntry<>(record.destination(), Map.of(record.key(), record.value())));
        }
        redis.xadd(entries);
    }
}
