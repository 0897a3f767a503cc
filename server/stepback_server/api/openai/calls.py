"""Searches of one call that has several."""

from collections.abc import AsyncGenerator, Sequence

from stepback_core.schemas import SolveRequest, SolveResult
from stepback_server.gateway.tenant import Tenant
from stepback_server.service import Service
from stepback_server.solve.batch import BatchRun, Ended


def search_rows(
    service: Service, searches: Sequence[SolveRequest], tenant: Tenant, key: str | None
) -> BatchRun:
    """Begin to search, as many at once as the key may have in flight. Each row of a repeated call
    joins the same row of the first one."""

    async def solve(place: int) -> SolveResult:
        # A single search keeps the caller's key, so that it is the same in /solve.
        row_key = key if key is None or len(searches) == 1 else f"{key}/{place}"
        result, _ = await service.searches.result(searches[place], tenant, row_key)
        return result

    return BatchRun(solve, len(searches), at_once=service.at_once(tenant))


async def begun(run: BatchRun) -> AsyncGenerator[Ended | None]:
    """Wait for the first row or heartbeat, and return all rows with it.

    Raises what the first row raises: before a stream begins an error still has a status. What
    begins no stream has ended every search.
    """
    rows = run.rows()
    try:
        first = await anext(rows)
        if first is not None and isinstance(first[1], Exception):
            raise first[1]
    except BaseException:  # A cancellation too: it is how a caller's hang-up comes here.
        await run.close()
        raise

    async def all_rows() -> AsyncGenerator[Ended | None]:
        yield first
        async for row in rows:
            yield row

    return all_rows()


async def all_results(run: BatchRun, rows: int) -> list[SolveResult]:
    """Return the results of all rows in their order. Raises what the first failing row raises."""
    results: dict[int, SolveResult] = {}
    async for ended in run.rows():
        if ended is not None:
            place, result = ended
            if isinstance(result, Exception):
                # OpenAI's answer has no place for one row's error; leaving the loop ends the
                # others.
                raise result
            results[place] = result
    return [results[place] for place in range(rows)]
